"""Measures what sampling.densest saves and changes, in renders with many pixels per latent cell.

Run: python benchmarks/dense.py --data PHOTOS [--model photos,emoji] [--num 4]
"""

import argparse
import time
from collections.abc import Sequence

import jax
import numpy as np
from common import centre_crops, markdown

import arbiscale_jax as aj

SIDE, WINDOW = 32, 256  # pixels of an input, and of the window that is rendered
PIXELS, DENSEST = (24, 64, 256), (8, 16, 32)  # output pixels per latent cell, and the values of the field


def with_densest(model, densest: float):
    config = {**model.config, "sampling": {**model.config["sampling"], "densest": densest}}
    return aj.Model(config, model.params, model.scale_factor)


def render(model, z, pixels: int) -> tuple[np.ndarray, float]:
    """Returns a window of a render with so many pixels per cell, and the seconds of a second call."""
    height, width = (n * pixels for n in z.shape[1:3])
    box = (height // 3, width // 3, WINDOW, WINDOW)
    model.render(z, (height, width), box)
    began = time.perf_counter()
    found = model.render(z, (height, width), box)
    return found.astype(int), time.perf_counter() - began


def measure(model, latents: Sequence, pixels: int, densest: int) -> list[str]:
    """Renders the same windows with all pixels computed and with interpolated ones."""
    models = [with_densest(model, float(most)) for most in (0, densest)]
    pairs = [[render(one, z, pixels) for one in models] for z in latents]
    errors = np.stack([np.abs(a - b) for (a, _), (b, _) in pairs])
    slow, quick = (sum(pair[i][1] for pair in pairs) for i in range(2))
    figures = [f"{errors.max()}", f"{errors.mean():.3f}", f"{(errors > 1).mean():.2%}", f"{slow / quick:.1f}"]
    return [str(pixels), str(densest), *figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of photographs")
    parser.add_argument("--model", default="photos,emoji")
    parser.add_argument("--num", type=int, default=4, help="of pictures")
    args = parser.parse_args()
    rows = []
    for name in args.model.split(","):
        model = aj.load(name)
        if model.config["condition"]["enabled"]:
            crops = list(centre_crops(args.data, SIDE).values())[: args.num]
            latents = [model.upscale_latent(crop) for crop in crops]
        else:
            latents = [jax.numpy.asarray(z)[None] for z in model.generate_latent(args.num)]
        for pixels in PIXELS:
            for densest in DENSEST:
                if densest < pixels:
                    rows.append([name, *measure(model, latents, pixels, densest)])
                    print(*rows[-1], flush=True)
    header = ["model", "pixels per cell", "densest", "largest error", "mean error", "above 1", "times faster"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
