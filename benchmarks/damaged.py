"""Writes damaged low-resolution pictures, as the restoring model's training makes them, for another upscaler to answer.

Run: python benchmarks/damaged.py --data PHOTOS[,PHOTOS...] --output DIR/lr --num 400
Any x4 upscaler's answers of the same names, in DIR/hr, make DIR what data.synthesis.pairs_root takes.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from arbiscale_jax.data import synthesis
from arbiscale_jax.experiments import get_restoring_config

SCALE = 4
HEAVY = 0.75  # share of heavily damaged pictures; the others are damaged lightly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--drawn", default="", help="a folder of drawn pictures, for the sheets")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num", type=int, default=400)
    parser.add_argument("--side", type=int, default=144, help="of a picture, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    config, region = get_restoring_config("align").data.unlock(), args.side * SCALE
    config.update(root=args.data)
    config.synthesis.update(tile=region, drawn_root=args.drawn)
    store = synthesis.store_from_config(config)
    variant = synthesis.Variant(args.side, 1, SCALE, SCALE, 1.0, region)
    settings = synthesis.Settings(clean=0.0, light=1 - HEAVY, heavy=HEAVY)
    args.output.mkdir(parents=True, exist_ok=True)
    for i, batch in zip(range(args.num), synthesis.batches(store, [variant], settings, args.seed, 1), strict=False):
        levels = np.round((jax.device_get(batch["lr"])[0] + 1) * 127.5)
        Image.fromarray(levels.astype(np.uint8)).save(args.output / f"{i:05d}.png")


if __name__ == "__main__":
    main()
