"""One model for clean and for degraded pictures? Upscaling what is clean, blurred, noisy, compressed, or all, by 4.

Run: python benchmarks/degraded_input.py --data DIR --models photos (4 minutes on 2 CPU cores for 12 pictures)
The truth is the central square of each picture; its input is bicubic, or degraded as in training (config.data.real,
a fixed draw a picture). Prints PSNR and LPIPS (AlexNet) of bicubic and of each model, with the mean difference to
bicubic and its standard error; writes sheet.png: input, bicubic, the models and the truth, of a few pictures.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from common import centre_crops, lpips_alex, markdown, paired, psnr, resized
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax.cli import program
from arbiscale_jax.data.degradations import make_shrink
from arbiscale_jax.experiments import get_base_config

SCALE = 4
OFF = {"blur_prob": 0.0, "noise_prob": 0.0, "jpeg_prob": 0.0}
KINDS = {
    "clean": {"prob": 0.0},
    "blur": OFF | {"blur_prob": 1.0},
    "noise": OFF | {"noise_prob": 1.0},
    "JPEG": OFF | {"jpeg_prob": 1.0},
    "all": {},
}
SHOWN = 3  # pictures of each kind on the sheet


def make_input(truth: np.ndarray, kind: str, seed: int) -> np.ndarray:
    config = get_base_config().data
    config.update(image_size=truth.shape[0], lr_size=truth.shape[0] // SCALE, degradation="real")
    config.real.update(KINDS[kind])
    return np.asarray(make_shrink(config)(Image.fromarray(truth), np.random.default_rng(seed)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of pictures")
    parser.add_argument("--models", nargs="+", default=["photos"])
    parser.add_argument("--refine", type=int, nargs="+", default=[None], help="rounds of back-projection to compare")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="of input")
    parser.add_argument("--side", type=int, default=384, help="of the truth")
    parser.add_argument("--output", type=Path, default=Path("out/degraded_input"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    program.start_jax()
    truths = list(centre_crops(args.data, args.side).values())
    methods = {"bicubic": lambda lr: resized(lr, [SCALE * side for side in lr.shape[:2]])}
    for name in args.models:
        model = aj.load(name)
        for refine in args.refine:
            label = name if refine is None else f"{name}, refine {refine}"
            methods[label] = lambda lr, model=model, refine=refine: model.upscale(lr, scale=SCALE, refine=refine)

    rows, sheet = [], []
    for kind in args.kinds:
        inputs = [make_input(truth, kind, i) for i, truth in enumerate(truths)]
        outputs = {name: [method(lr) for lr in inputs] for name, method in methods.items()}
        measured = {
            name: [list(map(measure, found, truths)) for measure in (psnr, lpips_alex)]
            for name, found in outputs.items()
        }
        for name, values in measured.items():
            pairs = zip(values, measured["bicubic"], strict=True)
            cells = [f"{np.mean(v):.4f} ({paired(v, base)})" for v, base in pairs]
            rows.append([kind, name, *cells])
        for i in range(min(SHOWN, len(truths))):
            size = truths[0].shape[:2]
            enlarged = resized(inputs[i], size, Image.Resampling.NEAREST)
            row = [enlarged, *(found[i] for found in outputs.values()), truths[i]]
            sheet.append(np.concatenate([resized(x, size) for x in row], axis=1))
    print(markdown(["input", "method", "PSNR, dB (less bicubic's)", "LPIPS (less bicubic's)"], rows))
    print(f"{len(truths)} pictures, {args.side} pixels, JAX {jax.__version__}, {jax.devices()[0].device_kind}")
    Image.fromarray(np.concatenate(sheet)).save(args.output / "sheet.png")


if __name__ == "__main__":
    main()
