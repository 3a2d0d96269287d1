"""What LPIPS, the spectrum loss and the discriminator do to a restoring model, settled in the small.

Protocol: one auto-encoder (--first-stage) and one U-Net (a level of 64 channels, 5 blocks), trained on L1 and coarse
colours for --warm minutes; from there each row trains U-Net, D and f_theta for --minutes on the same examples
(data/synthesis, one variant: LR 24, windows of 64 pixels, x2.75 to x4; batches of 4). Then 24 fixed held-out examples
at x4, clean and damaged: PSNR, LPIPS on AlexNet (on which nothing was trained) and on VGG16, weave; for the true
latent PSNR as well. The sheet shows bicubic, every row, and the truth; each row's model is written too.

Run: python benchmarks/loss_weights.py --train DIR,DIR --first-stage RUN --minutes 3 --output out/loss_weights
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import markdown
from PIL import Image

from arbiscale_jax import data, models, registry, storage
from arbiscale_jax.data import synthesis
from arbiscale_jax.evaluation import weave
from arbiscale_jax.perceptual import load_lpips, lpips
from arbiscale_jax.restoring import get_restoring_config
from arbiscale_jax.storage import merge
from arbiscale_jax.training import latent, loop, start, state
from arbiscale_jax.training import stage as s
from arbiscale_jax.training.optimizer import LearningRate, make_optimizer
from arbiscale_jax.training.step import make_train_step, stream

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
VARIANT, BATCH, VAL, SEED = (24, 64, 2.75, 4.0, 1.0), 4, 24, 0


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
    return config.lock()


def train_for(config, given: dict, store, minutes: float, rate: float):
    """Trains a stage for some minutes after its compilation; returns its weights, the steps and the last metrics."""
    stage = loop.build_stage(config)
    variants, settings = synthesis.from_config(config.data)
    batches = synthesis.batches(store, variants, settings, SEED, BATCH)
    batch = next(batches)
    params, frozen = start.start_weights(stage, given, stream(SEED, "params"), batch)
    if stage.lpips:
        frozen = {**frozen, "lpips": stage.lpips}
    tx = make_optimizer(LearningRate(rate, 20, "cosine", 0.05), grad_clip=1.0)
    disc = stage.adversary.init(stream(SEED, "disc")) if stage.adversary else None
    now = state.create_state(params, tx, 0.98, disc)
    step = (
        make_train_step(stage.loss_fn, tx, stream(SEED, "train"), 0.98, path=stage.path, adversary=stage.adversary)
        .lower(now, frozen, batch, np.float32(0))
        .compile()
    )
    began, num, kept = time.monotonic(), 0, []
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        now, metrics = step(now, frozen, batch, np.float32(share))
        kept = [*kept[-19:], jax.device_get(metrics)]
        num, batch = num + 1, next(batches)
    frozen = {name: tree for name, tree in frozen.items() if name != "lpips"}
    means = {name: float(np.mean([one[name] for one in kept])) for name in kept[0]}
    return jax.device_get(merge(frozen, now.average)), num, means


def measure(config, weights: dict, batches: dict, distances) -> tuple[dict, np.ndarray]:
    """Renders the held-out examples; returns the figures and the renders of every kind, joined."""
    nets, found, shown = latent.build_nets(config), {}, []

    @jax.jit
    def render(weights, batch):
        frozen = {name: tree for name, tree in weights.items() if name != "unet"}
        c = latent.condition(nets, frozen, batch)
        noise, t = jax.random.normal(jax.random.key(3), c.shape), jnp.full(len(c), len(nets.alpha_bar) - 1)
        told = jnp.full(len(c), -1.0)
        z = latent.estimate(nets, weights["unet"], noise, t, c, strength=told).z_0_hat / weights["scale_factor"]
        true, _ = latent.posterior(nets, frozen, batch)
        return [s.render_window(nets.first_stage, weights["first_stage"], one, batch) for one in (z, true)]

    for name, batch in batches.items():
        x = np.asarray(batch["target"])
        x_hat, back = (np.clip(np.asarray(one), -1, 1) for one in render(weights, batch))
        found |= figures(name, x_hat, x, distances)
        if name == "clean":
            found["true latent, PSNR"] = psnr(back, x)
        shown.append(x_hat)
    return found, np.concatenate(shown)


def psnr(a, b) -> float:
    return float(np.mean(10 * np.log10(4 / np.mean(np.square(a - b), axis=(1, 2, 3)))))


def figures(name: str, x_hat, x, distances) -> dict:
    spectra = weave.Spectra()
    for a, b in zip(x_hat, x):
        spectra.add("render", (a + 1) * 127.5, (b + 1) * 127.5)
    values = {"PSNR": psnr(x_hat, x)} | {label: float(np.mean(run(x_hat, x))) for label, run in distances.items()}
    return {f"{name}, {key}": value for key, value in values.items()} | {f"{name}, weave": spectra.weaves()["render"]}


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
    store = jax.tree.map(jnp.asarray, synthesis.store_from_config(base.data))
    tree = storage.read_weights(storage.locate(args.first_stage))
    given = {"first_stage": tree["first_stage"], "scale_factor": np.float32(1)}
    given, steps, _ = train_for(base, given, store, args.warm, 1e-3)
    print(f"warm: {steps} steps", flush=True)

    n, patch = VARIANT[:2]
    x4 = synthesis.Variant(n, patch, 4.0, 4.0, 1.0, 4 * n)
    _, settings = synthesis.from_config(base.data)
    held_out = synthesis.make_store([(data.make_source("folder", args.train, "val"), 1.0)], base.data.synthesis.tile, 4)
    held_out = jax.tree.map(jnp.asarray, held_out)
    ways = {"clean": settings._replace(clean=1.0, light=0.0, heavy=0.0)}
    ways["damaged"] = settings._replace(clean=0.0, light=0.5, heavy=0.5)
    batches = {name: synthesis.make_batch(jax.random.key(99), held_out, x4, VAL, way) for name, way in ways.items()}
    nets = {"LPIPS": load_lpips("alex"), "LPIPS-VGG": load_lpips("vgg")}
    distances = {name: jax.jit(lambda a, b, net=net: lpips(net, a, b)) for name, net in nets.items()}

    rows, panels = [], []
    for label in ("bicubic", "truth"):
        found, shown = {}, []
        for name, batch in batches.items():
            x = np.asarray(batch["target"])
            x_hat = x if label == "truth" else np.asarray(enlarged(batch, patch))
            shown.append(x_hat)
            if label != "truth":
                found |= figures(name, x_hat, x, distances)
            else:
                found[f"{name}, weave"] = figures(name, x, x * 1.0, {})[f"{name}, weave"]
        rows.append({"losses": label, **{k: f"{v:.4g}" for k, v in found.items()}})
        panels.append(np.concatenate(shown))
    for label, loss in ROWS.items():
        if args.only not in label:
            continue
        config = make_config(args.train, loss, decoder=True)
        weights, steps, metrics = train_for(config, given, store, args.minutes, 5e-4)
        found, shown = measure(config, weights, batches, distances)
        found |= {"disc. right": metrics.get("right", np.nan)}
        about = {"model": config.model.to_dict(), "training": {"losses": label, "steps": steps}}
        folder = args.output / label.replace(" ", "_").replace(",", "")
        registry.write_export(folder, about, weights, f"A row of benchmarks/loss_weights.py: {label}.\n", np.float16)
        rows.append({"losses": label, "steps": str(steps), **{k: f"{v:.4g}" for k, v in found.items()}})
        panels.insert(-1, shown)
        print(rows[-1], flush=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(markdown(names, [[row.get(name, "") for name in names] for row in rows]))
    some = [0, 3, 6, 9, 12, 15, VAL, VAL + 4, VAL + 8, VAL + 12, VAL + 16, VAL + 20]
    sheet = np.concatenate([np.concatenate([panel[i] for panel in panels], axis=1) for i in some])
    Image.fromarray(np.uint8(np.clip((sheet + 1) * 127.5, 0, 255).round())).save(args.output / "sheet.png")


def enlarged(batch: dict, patch: int):
    """Enlarges the LR pictures by bicubic to the windows of the targets."""
    out = []
    for lr, size, place in zip(batch["lr"], np.asarray(batch["target_size"]), np.asarray(batch["target_start"])):
        whole = models.interpolate(lr[None], (int(size), int(size)), "bicubic")[0]
        out.append(np.clip(whole[place[0] : place[0] + patch, place[1] : place[1] + patch], -1, 1))
    return np.stack(out)


if __name__ == "__main__":
    main()
