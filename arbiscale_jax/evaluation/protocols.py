"""From a photograph to pairs of low resolution and truth, and the plain interpolations. Sizes are (height, width).

Every reduction is Pillow's BICUBIC: a = -0.5, antialiased, in 8 bits, like MATLAB's imresize; training's as well.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError

PROTOCOLS = ("fixed_hr", "fixed_lr")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Pair(NamedTuple):
    """One test case."""

    scale: float
    lr: np.ndarray  # uint8 [h, w, 3]; one object where several scales share it
    truth: np.ndarray  # uint8 [H, W, 3]


def resize(image: np.ndarray, size: tuple[int, int], method: str = "bicubic") -> np.ndarray:
    """Resizes uint8 [h, w, 3] to `size` by one of INTERPOLATIONS (Pillow's; antialiased where it shrinks)."""
    if image.shape[:2] == tuple(size):
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((size[1], size[0]), INTERPOLATIONS[method]))


def center_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts the central window of at most `size`."""
    height, width = (min(side, limit) for side, limit in zip(image.shape, size))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts the largest central window of the aspect ratio of `size` and resizes it (bicubic) to `size`."""
    scale = min(image.shape[0] / size[0], image.shape[1] / size[1])
    return resize(center_crop(image, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))), size)


def sizes_of(
    shape: Sequence[int], scale: float, protocol: str, lr_size: int, name: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the sizes of the LR image and the truth that `make_pairs` makes of an image of this shape.

    Raises: UserError if the image, which errors call `name`, is too small.
    """
    height, width = shape[:2]
    if protocol == "fixed_lr":
        needed = round(max(scale, 1) * lr_size)
        if min(height, width) < needed:
            raise UserError(
                f"{name} ({height} x {width}) is too small for --protocol=fixed_lr: a truth of {needed} x {needed} "
                "would have to be enlarged; give larger images, or lower --scales or --lr-size."
            )
        return (lr_size, lr_size), (round(scale * lr_size),) * 2
    low = tuple(math.floor(side / scale + 1e-9) for side in (height, width))  # 1e-9: 21 / 2.1 is 9.999...
    if min(low) < 2:
        raise UserError(
            f"{name} ({height} x {width}) is too small for scale {scale:g}: its LR image would have "
            f"{low[0]} x {low[1]} pixels; leave the scale or the image out."
        )
    return low, tuple(min(round(side * scale), whole) for side, whole in zip(low, (height, width)))


def make_pairs(image: np.ndarray, scales: Sequence[float], protocol: str, lr_size: int, name: str) -> list[Pair]:
    """Makes a test case for each scale s.

    fixed_hr, benchmarks: LR sides are floor(side / s); the truth is the image's top left round(s * LR side), which for
    whole scales is the usual crop to a multiple of s; LR is the truth, reduced.
    fixed_lr, the paper's Tables 2 and 4: the central square, reduced to lr_size (LR) and to round(s * lr_size) (truth).

    Raises: UserError if `image` (which errors call `name`) is too small.
    """
    found = [sizes_of(image.shape, scale, protocol, lr_size, name) for scale in scales]
    if protocol == "fixed_hr":
        truths = [np.ascontiguousarray(image[:height, :width]) for _, (height, width) in found]
        return [Pair(s, resize(truth, low), truth) for s, truth, (low, _) in zip(scales, truths, found)]
    square = center_crop(image, (min(image.shape[:2]),) * 2)
    lr = resize(square, (lr_size, lr_size))
    return [Pair(scale, lr, resize(square, size)) for scale, (_, size) in zip(scales, found)]
