"""What alignment does to a trained super-resolution model, in both modes, equal minutes each.

Run: python benchmarks/align_modes.py --run runs/quickstart_sr_diffusion --train DIR --val DIR --minutes 10
Central crops of the validation images are reduced (antialiased bicubic) and upscaled from the same noise before and
after; prints PSNR and LPIPS (AlexNet), their means and the paired differences. Needs the extra `eval`. More fields:
--set FIELD=VALUE ... (loss.align_steps=10, loss.weight_cap=10, ...)
"""

from pathlib import Path

import numpy as np
from common import centre_crops, lpips_alex, make_parser, markdown, paired, psnr, resized
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax.artifacts import storage
from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.training import train
from arbiscale_jax.training.stages.alignment import MODES


def get_config(options, mode: str):
    """Returns the run's own configuration, turned to alignment."""
    config = get_base_config()
    config.update(storage.read_config(options.run))
    config.update(stage="align", init_from=str(options.run), first_stage="")
    if options.train:
        config.data.update(source="folder", root=options.train, val_source="folder", val_root=options.val)
    config.loss.align_mode = mode
    config.train.update(learning_rate=options.learning_rate, minutes=options.minutes, steps=10**9)
    config.update_from_flattened_dict(dict(options.set))
    return config.lock()


def evaluate(run, crops, options, output: Path):
    """Upscales every crop's reduction -> PSNR and LPIPS, [n] each; writes a picture (truth, answer)."""
    model, found, pictures = aj.load(run), [], []
    for x in crops.values():
        lr = resized(x, tuple(round(side / options.scale) for side in x.shape[:2]))
        sr = model.upscale(lr, size=x.shape[:2], seed=0, steps=options.steps)
        found.append((psnr(sr, x), lpips_alex(sr, x)))
        pictures.append(np.concatenate([x, sr], axis=1))
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(output.with_name(f"{output.name}_{i:02d}.png"))
    return np.transpose(found)


def main():
    parser = make_parser(__doc__, 10.0, "out/align_modes")
    parser.add_argument("--run", type=Path, required=True, help="a trained SR run of stage diffusion")
    parser.add_argument("--train", help="folder of training images; default the run's data")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--steps", type=int, help="of sampling; default the model's")
    options = parser.parse_args()

    crops = centre_crops(options.val, options.side)
    options.output.mkdir(parents=True, exist_ok=True)
    before = evaluate(options.run, crops, options, options.output / "before")
    rows = [["before", "-", *(f"{n:.4f}" for n in before.mean(axis=1)), "", ""]]
    for mode in MODES:
        run = options.output / f"{mode}_align"
        train(get_config(options, mode), run)
        after = evaluate(run, crops, options, options.output / mode)
        differences = [paired(a, b) for a, b in zip(after, before, strict=True)]
        rows.append([mode, str(storage.newest_step(run)), *(f"{n:.4f}" for n in after.mean(axis=1)), *differences])
    print(f"\n{len(crops)} crops of up to {options.side} pixels, x{options.scale:g}, {options.minutes:g} minutes each")
    print(markdown(["alignment", "steps", "PSNR", "LPIPS", "PSNR, paired", "LPIPS, paired"], rows))


if __name__ == "__main__":
    main()
