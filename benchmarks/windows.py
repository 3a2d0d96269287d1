"""Measures how far a picture that is sampled in windows is from one pass, with norms of the whole and of each window.

Run: python benchmarks/windows.py [--model MODEL] [--most 200] [--size 300x400] [--save DIR] PICTURE ...

For each picture (its top left part) it prints the PSNR of the render at twice the input's size against that of one
pass, the largest difference of 255, and the time relative to one pass, without compilation. --save writes the renders.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import arbiscale_jax as aj
from arbiscale_jax.cli.sizes import parse_size
from arbiscale_jax.images import read_image, save
from arbiscale_jax.inference.latents import Job, upscale
from arbiscale_jax.inference.options import resolve
from arbiscale_jax.inference.tiles import to_integers
from arbiscale_jax.models import STATISTICS


def sample(model: aj.Model, image: np.ndarray, statistics: str, most: int) -> tuple[np.ndarray, float]:
    """Returns the latent [1 h w c] of a picture in windows of at most `most` pixels, and the second run's seconds."""
    job = Job([image], [0], resolve(model.config, {"statistics": statistics}), 0)
    for _ in range(2):
        start = time.perf_counter()
        [(_, z)] = upscale(model.engine, job, most)
    return z, time.perf_counter() - start


def keep(folder: Path | None, name: str, x) -> None:
    """Writes a render [1 h w 3] in [-1, 1]."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / name, to_integers(np.asarray(x)[0], "uint8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--model", default="photos")
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--size", default="300x400")
    parser.add_argument("--save", type=Path, help="folder for the renders")
    args = parser.parse_args()
    model, (height, width) = aj.load(args.model), parse_size(args.size, "--size")
    print("| picture | norms | PSNR dB | largest of 255 | time of one pass |\n| --- | --- | --- | --- | --- |")
    for name in args.pictures:
        image = read_image(name)[:height, :width]
        size = (2 * image.shape[0], 2 * image.shape[1])
        z, base = sample(model, image, "whole", max(image.shape))
        one = model.decode(z, size).clip(-1, 1)
        keep(args.save, f"{Path(name).stem}_one_pass.png", one)
        for statistics in STATISTICS:
            z, seconds = sample(model, image, statistics, args.most)
            found = model.decode(z, size).clip(-1, 1)
            keep(args.save, f"{Path(name).stem}_{statistics}.png", found)
            error = found - one
            psnr, most = 10 * np.log10(4 / np.mean(np.square(error))), 127.5 * np.abs(error).max()
            print(f"| {name} | {statistics} | {psnr:.1f} | {most:.1f} | {seconds / base:.2f} |", flush=True)


if __name__ == "__main__":
    main()
