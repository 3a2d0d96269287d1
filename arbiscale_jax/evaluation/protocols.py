"""Makes pairs of low resolution and truth from photographs, and enlarges by plain interpolation.

Sizes are (height, width). Every reduction is Pillow's BICUBIC (a = -0.5, antialiased, in 8 bits), which is like
MATLAB's imresize and is used in training too.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Pair(NamedTuple):
    """Holds one test case."""

    scale: float  # the factor of upscaling
    lr: np.ndarray  # uint8 [h, w, 3], the input; the same object if several scales share it
    truth: np.ndarray  # uint8 [H, W, 3], the wanted output


def resize(image: np.ndarray, size: tuple[int, int], method: str = "bicubic") -> np.ndarray:
    """Resizes uint8 [h, w, 3] to `size` by one of INTERPOLATIONS, which are Pillow's and antialias when they reduce."""
    if image.shape[:2] == tuple(size):
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((size[1], size[0]), INTERPOLATIONS[method]))


def center_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts out the central window of at most `size`."""
    height, width = (min(side, limit) for side, limit in zip(image.shape[:2], size, strict=True))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts out the largest central window with the aspect ratio of `size` and resizes it (bicubic) to `size`."""
    scale = min(image.shape[0] / size[0], image.shape[1] / size[1])
    return resize(center_crop(image, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))), size)


def sizes_of(
    shape: Sequence[int], scale: float, protocol: str, lr_size: int, name: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the sizes of the LR image and of the truth that `make_pairs` makes from an image of this shape.

    Args:
      shape: the shape (h, w, ...) of the image.
      scale: the factor of upscaling.
      protocol: fixed_hr or fixed_lr.
      lr_size: the side of the LR image in the protocol fixed_lr.
      name: what error messages call the image.

    Returns:
      The (height, width) of the LR image.
      The (height, width) of the truth.

    Raises:
      UserError: if the image is too small.
    """
    height, width = shape[:2]
    if protocol == "fixed_lr":
        needed = round(max(scale, 1) * lr_size)
        if min(height, width) < needed:
            raise UserError(
                f"{name} ({height} x {width}) is too small for --protocol=fixed_lr: a truth of {needed} x {needed} "
                "would have to be enlarged; give larger images, or lower --scales or --lr-size."
            )
        side = round(scale * lr_size)
        return (lr_size, lr_size), (side, side)
    low = math.floor(height / scale + 1e-9), math.floor(width / scale + 1e-9)  # 1e-9, since 21 / 2.1 is 9.999...
    if min(low) < 2:
        raise UserError(
            f"{name} ({height} x {width}) is too small for scale {scale:g}: its LR image would have "
            f"{low[0]} x {low[1]} pixels; leave the scale or the image out."
        )
    return low, (min(round(low[0] * scale), height), min(round(low[1] * scale), width))


def given_pair(image: np.ndarray, lr: np.ndarray, scale: float) -> Pair:
    """Makes a test case of an image and its given LR image.

    The truth is the top left round(scale h) x round(scale w) of the image, or all of it where it is smaller.

    Args:
      image: uint8 [H, W, 3].
      lr: uint8 [h, w, 3].
      scale: the factor between them.
    """
    height, width = (min(round(scale * low), high) for low, high in zip(lr.shape[:2], image.shape[:2], strict=True))
    return Pair(round(scale, 4), lr, np.ascontiguousarray(image[:height, :width]))


def make_pairs(image: np.ndarray, scales: Sequence[float], protocol: str, lr_size: int, name: str) -> list[Pair]:
    """Makes one test case per scale s.

    In the protocol fixed_hr, that of benchmarks, the sides of LR are floor(side / s). The truth is the top left round(s
    * LR side) of the image, which for whole scales is the usual crop to a multiple of s, and LR is the truth, reduced.
    In the protocol fixed_lr, that of the paper's Tables 2 and 4, the central square is reduced to lr_size (LR) and to
    round(s * lr_size) (truth).

    Args:
      image: uint8 [h, w, 3].
      scales: the factors of upscaling.
      protocol: fixed_hr or fixed_lr.
      lr_size: the side of the LR image in the protocol fixed_lr.
      name: what error messages call the image.

    Returns:
      The test cases in the order of the scales.

    Raises:
      UserError: if the image is too small.
    """
    found = [sizes_of(image.shape, scale, protocol, lr_size, name) for scale in scales]
    if protocol == "fixed_hr":
        truths = [np.ascontiguousarray(image[:height, :width]) for _, (height, width) in found]
        return [Pair(s, resize(truth, low), truth) for s, truth, (low, _) in zip(scales, truths, found, strict=True)]
    square = center_crop(image, (min(image.shape[:2]),) * 2)
    lr = resize(square, (lr_size, lr_size))
    return [Pair(scale, lr, resize(square, size)) for scale, (_, size) in zip(scales, found, strict=True)]
