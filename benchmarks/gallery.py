"""Makes README's gallery with the bundled models, from scikit-image's photographs and from noise.

Run: python benchmarks/gallery.py --output docs/images (about 3 minutes on 2 CPU cores). It writes
  gallery_scales.jpg   one photograph at x2, x4, x8 and x13.3: bicubic above, the model below, the same place;
  gallery_latent.jpg   one latent, rendered at four sizes;
  gallery_samples.jpg  three answers to one input, which stands at the left;
  gallery_emoji.jpg    generated emoji, each rendered at three sizes.
"""

import argparse
from pathlib import Path

import numpy as np
from common import resized
from PIL import Image, ImageDraw

import arbiscale_jax as aj
from arbiscale_jax import data

CELL, GAP, LABEL = 224, 4, 14  # pixels
SCALES = (2, 4, 8, 13.3)


def photograph(name: str, reduction: int) -> np.ndarray:
    """Returns a photograph of scikit-image, reduced."""
    source = data.make_source("embedded", split="all")
    x = source[next(i for i in range(len(source)) if name in source.name(i))]
    return resized(x, (x.shape[0] // reduction, x.shape[1] // reduction))


def window(size: tuple[int, int], place: tuple[float, float]) -> tuple[int, int, int, int]:
    """Returns the box of CELL pixels a side around a place (y, x) in [0, 1]^2, as far as it fits."""
    sides = [min(CELL, side) for side in size]
    corner = [min(max(round(u * side) - n // 2, 0), side - n) for u, side, n in zip(place, size, sides, strict=True)]
    return (*corner, *sides)


def cut(x: np.ndarray, box) -> np.ndarray:
    top, left, height, width = box
    return x[top : top + height, left : left + width]


def sheet(rows: list[list[tuple[str, np.ndarray]]]) -> Image.Image:
    """Lays out labelled pictures on white, at their own size."""
    heights = [max(x.shape[0] for _, x in row) + LABEL + GAP for row in rows]
    width = max(sum(x.shape[1] + GAP for _, x in row) for row in rows)
    page, top = Image.new("RGB", (width, sum(heights)), "white"), 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for label, x in row:
            ImageDraw.Draw(page).text((left, top), label, fill="black")
            page.paste(Image.fromarray(x), (left, top + LABEL))
            left += x.shape[1] + GAP
        top += height
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--photos", default="photos", help="super-resolution model")
    parser.add_argument("--emoji", default="emoji", help="generative model")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    def save(name: str, rows) -> None:
        sheet(rows).save(args.output / f"gallery_{name}.jpg", quality=88)

    model = aj.load(args.photos)
    lr, place = photograph("astronaut", 4), (0.28, 0.45)
    z, above, below = model.upscale_latent(lr), [], []
    for scale in SCALES:
        size = tuple(round(side * scale) for side in lr.shape[:2])
        box = window(size, place)
        above.append((f"bicubic x{scale:g}", cut(resized(lr, size), box)))
        below.append((f"photos x{scale:g}", model.render(z, size, box)[0]))
    save("scales", [above, below])

    lr = photograph("chelsea", 4)
    z = model.upscale_latent(lr)
    sizes = [tuple(round(side * scale) for side in lr.shape[:2]) for scale in (1, 1.7, 2.6, 4)]
    save("latent", [[(f"{h} x {w}", model.render(z, (h, w))[0]) for h, w in sizes]])

    lr, place = photograph("coffee", 4), (0.5, 0.4)
    size = tuple(4 * side for side in lr.shape[:2])
    box = window(size, place)
    answers = model.upscale(lr, size=size, samples=3)
    given = ("input", cut(resized(lr, size, Image.Resampling.NEAREST), box))
    save("samples", [[given, *((f"seed 0, answer {i}", cut(x, box)) for i, x in enumerate(answers))]])

    model = aj.load(args.emoji)
    z = model.generate_latent(8)
    save("emoji", [[(f"{side}", x) for x in model.render(z, (side, side))] for side in (64, 128, 192)])


if __name__ == "__main__":
    main()
