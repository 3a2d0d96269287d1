"""How good a trained super-resolution run is on a photograph it never saw, and whether its scales agree.

Run: python benchmarks/quickstart_quality.py --model runs/quickstart_sr_align --output out/quality
The photograph is scikit-image's `coffee`, which the embedded training split leaves out; its x4 reduction (Pillow's
antialiased bicubic) is upscaled. Another one: --photo FILE.
"""

import argparse
import json
import time
from pathlib import Path

from common import psnr, resized
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax import data
from arbiscale_jax.images import read_image

SCALES = (2.0, 3.7, 8.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photo", help="an image file; default scikit-image's coffee")
    parser.add_argument("--steps", type=int, nargs="*", help="sampling steps to compare; default the model's")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    photo = read_image(options.photo) if options.photo else data.make_source("embedded", split="val")[0]
    size = tuple(side // 4 * 4 for side in photo.shape[:2])
    truth = photo[: size[0], : size[1]]
    lr = resized(truth, (size[0] // 4, size[1] // 4))
    pictures = {"truth": truth, "lr": lr}
    for name in ("NEAREST", "BILINEAR", "BICUBIC"):
        pictures[name.lower()] = resized(lr, size, Image.Resampling[name])
    found = {name: round(psnr(pictures[name], truth), 3) for name in ("nearest", "bilinear", "bicubic")}

    model = aj.load(options.model)
    for steps in options.steps or [None]:
        start = time.perf_counter()
        z = model.upscale_latent(lr, seed=0, steps=steps)
        name = f"model, {steps or model.config['sampling']['steps']} steps"
        pictures[name] = model.render(z, size)[0]
        found[name] = round(psnr(pictures[name], truth), 3)
        found[f"{name}, seconds with compilation"] = round(time.perf_counter() - start, 2)
    renders = {s: model.render(z, tuple(round(s * side) for side in lr.shape[:2]))[0] for s in SCALES}
    for s in SCALES[1:]:
        found[f"x{s:g} reduced against x2"] = round(psnr(resized(renders[s], renders[2.0].shape[:2]), renders[2.0]), 3)
        pictures[f"x{s:g}"] = renders[s]
    print(json.dumps(found, indent=1))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            Image.fromarray(picture).save(options.output / f"{name.replace(', ', '_').replace(' ', '_')}.png")


if __name__ == "__main__":
    main()
