"""What LPIPS, the spectrum loss and the discriminator do to a restoring model, settled in the small.

Protocol: one auto-encoder (--first-stage) and one U-Net (a level of 64 channels, 5 blocks), trained on L1 and coarse
colours for --warm minutes; from there each row trains U-Net, D and f_theta for --minutes on the same examples
(data/synthesis, one variant: LR 24, windows of 64 pixels, x2.75 to x4; batches of 4). Then 24 fixed held-out examples
at x4, clean and damaged: PSNR, LPIPS on AlexNet (on which nothing was trained) and on VGG16, weave; for the true
latent PSNR as well. The sheet shows bicubic, every row, and the truth; each row's model is written too.

Run: python benchmarks/loss_weights.py --train DIR,DIR --first-stage RUN --minutes 3 --output out/loss_weights
"""

import argparse
from pathlib import Path

import numpy as np
import small_runs
from common import markdown
from PIL import Image

from arbiscale_jax import models
from arbiscale_jax.artifacts import registry
from arbiscale_jax.experiments import get_restoring_config

NONE = {"align_lpips_weight": 0.0, "spectrum_weight": 0.0, "align_disc_weight": 0.0}
ROWS = {
    "L1 and coarse alone": NONE,
    "LPIPS 0.5": NONE | {"align_lpips_weight": 0.5},
    "LPIPS 0.5, spectrum 0.05": NONE | {"align_lpips_weight": 0.5, "spectrum_weight": 0.05},
    "LPIPS 0.5, disc 0.1": NONE | {"align_lpips_weight": 0.5, "align_disc_weight": 0.1},
    "LPIPS 0.5, spectrum 0.05, disc 0.1": {
        "align_lpips_weight": 0.5,
        "spectrum_weight": 0.05,
        "align_disc_weight": 0.1,
    },
    "LPIPS 0.25, spectrum 0.02, disc 0.1": {
        "align_lpips_weight": 0.25,
        "spectrum_weight": 0.02,
        "align_disc_weight": 0.1,
    },
}
VARIANT = (24, 64, 2.75, 4.0, 1.0)
SHARES = {"clean": (1.0, 0.0, 0.0), "damaged": (0.0, 0.5, 0.5)}  # of clean, light and heavy input
SHOWN = (0, 3, 6, 9, 12, 15)  # examples of each kind, on the sheet


def make_config(train: str, loss: dict, decoder: bool):
    """Builds the alignment's configuration with a small U-Net and the loss weights of a row."""
    config = get_restoring_config("align").unlock()
    config.model.unet.model_channels = 64
    with config.ignore_type():
        config.model.unet.channel_mult, config.model.unet.num_res_blocks = (1,), (5,)
        config.data.synthesis.variants = (VARIANT,)
    config.data.root = train
    config.loss.update(**loss, disc_ch=32, lpips_shift=7)
    if not decoder:
        config.loss.update(align_decoder=False, align_true_weight=0.0)
    config.train.update(batch_size=4, warmup_steps=20, final_lr=0.05, ema_decay=0.98)
    config.train.learning_rate = 5e-4 if decoder else 1e-3
    return config.lock()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="folders of pictures, joined by commas")
    parser.add_argument("--first-stage", required=True, help="run or model with the auto-encoder")
    parser.add_argument("--warm", type=float, default=3.0, help="minutes on L1 and coarse colours before the rows")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each row")
    parser.add_argument("--only", default="", help="rows whose names contain this")
    parser.add_argument("--output", type=Path, default=Path("out/loss_weights"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    base = make_config(args.train, NONE, decoder=False)
    store = small_runs.training_store(base)
    given = small_runs.given_first_stage(args.first_stage)
    warm = small_runs.train(base, given, small_runs.made_batches(base, store), small_runs.minutes_of(args.warm))
    print(f"warm: {warm.steps} steps", flush=True)
    batches, distances = small_runs.held_out_batches(base, SHARES), small_runs.make_distances()
    truths = {name: np.asarray(batch["target"]) for name, batch in batches.items()}

    shown = {name: enlarged(batch) for name, batch in batches.items()}
    found = {}
    for name, x in truths.items():
        found |= small_runs.figures(name, shown[name], x, distances)
    rows, panels = [cells_of("bicubic", found)], [shown]
    rows.append(cells_of("truth", {f"{name}, weave": small_runs.weave_of(x, x) for name, x in truths.items()}))
    for label, loss in ROWS.items():
        if args.only not in label:
            continue
        config = make_config(args.train, loss, decoder=True)
        batches_of_row, share_of = small_runs.made_batches(config, store), small_runs.minutes_of(args.minutes)
        run = small_runs.train(config, warm.weights, batches_of_row, share_of)
        answers, rebuilt = small_runs.make_renderers(config)
        panels.append({name: answers(run.weights, batch) for name, batch in batches.items()})
        found = {"steps": run.steps, "disc. right": run.metrics.get("right", np.nan)}
        for name, x in truths.items():
            found |= small_runs.figures(name, panels[-1][name], x, distances)
        found["true latent, PSNR"] = small_runs.psnr(rebuilt(run.weights, batches["clean"]), truths["clean"])
        about = {"model": config.model.to_dict(), "training": {"losses": label, "steps": run.steps}}
        folder, card = args.output / label.replace(" ", "_").replace(",", ""), f"A row of loss_weights.py: {label}.\n"
        registry.write_export(folder, about, run.weights, card, np.float16)
        rows.append(cells_of(label, found))
        print(rows[-1], flush=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(markdown(names, [[row.get(name, "") for name in names] for row in rows]))
    columns = [np.concatenate([panel[name][i] for name in batches for i in SHOWN]) for panel in (*panels, truths)]
    Image.fromarray(small_runs.to_bytes(np.concatenate(columns, axis=1))).save(args.output / "sheet.png")


def cells_of(label: str, found: dict) -> dict:
    """Formats a row of the table."""
    return {"losses": label, **{name: f"{value:.4g}" for name, value in found.items()}}


def enlarged(batch: dict) -> np.ndarray:
    """Enlarges the LR pictures by bicubic to the windows of the targets."""
    out, patch = [], batch["target"].shape[1]
    for lr, size, place in zip(*(np.asarray(batch[k]) for k in ("lr", "target_size", "target_start")), strict=True):
        whole = models.interpolate(lr[None], (int(size), int(size)), "bicubic")[0]
        out.append(np.clip(whole[place[0] : place[0] + patch, place[1] : place[1] + patch], -1, 1))
    return np.stack(out)


if __name__ == "__main__":
    main()
