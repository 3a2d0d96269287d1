"""Makes training examples from pairs of a picture and its given LR picture, whose crops show the same place.

Letters are those of transforms; s is the scale of the pair, m the side of the crop of the LR picture.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .degradations import resize
from .lr_pairs import PicturePair
from .transforms import ExampleSpec, augment, draw_place, draw_window, render, val_place, val_window


def paired_example(pair: PicturePair, rng: np.random.Generator, spec: ExampleSpec) -> dict[str, np.ndarray]:
    """Draws an example from a pair; what is drawn and returned is as in `transforms.example`.

    The crop of the LR picture has m = l / u pixels a side with u ~ U[min_crop, 1], and the crop of the larger picture
    the s m pixels of the same place, which are resized to S. Where m is l, lr has the pixels of the LR picture.

    Args:
      pair: the two pictures.
      rng: source of randomness; it is advanced.
      spec: sizes and augmentations; lr_size is above 0.
    """
    place = draw_place(_covered(pair), rng, spec, spec.lr_size)
    crop, small = augment(_crops(pair, *place), rng, spec)
    return render(crop, rng, spec, _instead(small, spec.lr_size), *draw_window(rng, spec))


def paired_val_example(pair: PicturePair, position: tuple[float, float], spec: ExampleSpec) -> dict[str, np.ndarray]:
    """Cuts a fixed validation example out of a pair; arguments and result are those of `transforms.val_example`."""
    place = val_place(_covered(pair), position, spec, spec.lr_size)
    crop, small = _crops(pair, *place)
    return render(crop, np.random.default_rng(0), spec, _instead(small, spec.lr_size), *val_window(spec))


def _covered(pair: PicturePair) -> tuple[int, int]:
    """Returns (h, w) of the part of the LR picture whose pixels lie inside the larger picture."""
    inside = [max(1, int(large / pair.scale + 1e-9)) for large in pair.hr.shape[:2]]
    return min(pair.lr.shape[0], inside[0]), min(pair.lr.shape[1], inside[1])


def _crops(pair: PicturePair, side: int, top: int, left: int) -> Sequence[np.ndarray]:
    """Cuts a square of the LR picture and the same place of the larger one, which is rounded to whole pixels."""
    height, width = pair.hr.shape[:2]
    y, x = round(top * pair.scale), round(left * pair.scale)
    large = min(max(1, round(side * pair.scale)), height - y, width - x)
    return pair.hr[y : y + large, x : x + large], pair.lr[top : top + side, left : left + side]


def _instead(small: np.ndarray, side: int):
    """Returns the function that `render` makes LR images with, which gives the pair's own one."""
    return lambda image, rng: resize(Image.fromarray(np.ascontiguousarray(small)), side)
