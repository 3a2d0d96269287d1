"""Measures a model where people's pictures are: clean and damaged inputs, beside bicubic.

Printed for each kind of input: PSNR in dB (4 pixels cut off), LPIPS on AlexNet and VGG16, the weave over all pictures
(evaluation/weave.py), and the largest error of a channel's mean, of 255. Inputs are Pillow's antialiased bicubic
reduction of each picture's central square, then jpeg: quality 40; noise: sigma 12; blur: sigma 1.2; phone: blur 0.8,
noise 6, JPEG 60.

Run: python benchmarks/judge.py --model photos --data DIR [--scale 4] [--kinds clean,jpeg] [--save DIR]
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from common import centre_crops, psnr, resized
from PIL import Image, ImageFilter

import arbiscale_jax as aj
from arbiscale_jax.data import degradations
from arbiscale_jax.evaluation import weave
from arbiscale_jax.perceptual import load_lpips, lpips

BORDER = 4  # pixels cut off for PSNR


def jpeg(x, quality: int):
    return np.asarray(degradations.jpeg(Image.fromarray(x), quality))


def noisy(x, sigma: float, rng):
    return np.clip(x + rng.normal(0, sigma, x.shape), 0, 255).round().astype(np.uint8)


def blurred(x, sigma: float):
    return np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(sigma)))


KINDS = {  # (input, random generator) -> damaged input
    "clean": lambda x, rng: x,
    "jpeg": lambda x, rng: jpeg(x, 40),
    "noise": lambda x, rng: noisy(x, 12, rng),
    "blur": lambda x, rng: blurred(x, 1.2),
    "phone": lambda x, rng: jpeg(noisy(blurred(x, 0.8), 6, rng), 60),
}


class Distances:
    """LPIPS of two uint8 pictures on AlexNet and VGG16, compiled once per size."""

    def __init__(self):
        self._nets = [load_lpips(net) for net in ("alex", "vgg")]
        self._run = jax.jit(jax.default_matmul_precision("highest")(lpips))

    def __call__(self, a, b) -> list[float]:
        a, b = (np.float32(x)[None] / 127.5 - 1 for x in (a, b))
        return [float(self._run(net, a, b)[0]) for net in self._nets]


def judge(methods: dict, crops: dict, kinds, scale: int, save: Path | None = None) -> list[dict]:
    """Measures methods, (lr uint8, size) -> uint8, on pictures; returns a row per kind and method, truth among them.

    Args: crops, name -> uint8 [h w 3], sides multiples of scale; save, a folder of sheets: the methods and the truth.
    """
    distances, rows = Distances(), []
    for kind in kinds:
        found, spectra = {}, weave.Spectra()
        for i, (name, truth) in enumerate(crops.items()):
            size = truth.shape[:2]
            lr = KINDS[kind](resized(truth, [side // scale for side in size]), np.random.default_rng(i))
            outputs = {method: np.asarray(run(lr, size)) for method, run in methods.items()} | {"truth": truth}
            for method, output in outputs.items():
                spectra.add(method, output, truth)
                colour = np.abs(output.mean((0, 1)) - truth.mean((0, 1))).max()
                cut = np.s_[BORDER:-BORDER, BORDER:-BORDER]
                if method != "truth":
                    row = (psnr(output[cut], truth[cut]), *distances(output, truth), colour)
                    found.setdefault(method, []).append(row)
            if save:
                save.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.hstack([*outputs.values()])).save(save / f"{kind}_{i:02d}_{Path(name).stem}.png")
        weaves = spectra.weaves()
        for method, values in found.items():
            names = ("psnr", "lpips", "lpips_vgg", "colour")
            means = dict(zip(names, map(float, np.mean(values, axis=0)), strict=True))
            rows.append({"input": kind, "method": method, **means, "weave": weaves[method]})
        rows.append({"input": kind, "method": "truth", "weave": weaves["truth"]})
    return rows


def table(rows: list[dict]) -> str:
    """Formats `judge`'s rows for a terminal."""
    digits = {"psnr": 2, "lpips": 4, "lpips_vgg": 4, "colour": 2, "weave": 2}
    lines = ["input   method      psnr   lpips  lpips_vgg  colour  weave"]
    for row in rows:
        cells = (f"{row[name]:.{n}f}" if name in row else "-" for name, n in digits.items())
        lines.append("{:7} {:9} {:>6} {:>7} {:>10} {:>7} {:>6}".format(row["input"], row["method"], *cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="photos", help="bundled model, run or exported folder")
    parser.add_argument("--data", required=True, help="folder of pictures")
    parser.add_argument("--side", type=int, default=384, help="of the central square")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--save", type=Path, help="folder for the sheets")
    args = parser.parse_args()
    model = aj.load(args.model)
    methods = {
        "bicubic": resized,
        args.model.rstrip("/").split("/")[-1]: lambda lr, size: model.upscale(lr, size=size),
    }
    print(table(judge(methods, centre_crops(args.data, args.side), args.kinds.split(","), args.scale, args.save)))


if __name__ == "__main__":
    main()
