"""Upscaling a photograph that is too large for one pass: in overlapping windows, blended where they overlap.

The networks see a window at a time (as tiled diffusion does: Jimenez 2023, "Mixture of Diffusers"), so memory is
bounded by the window and the output. All windows cut one field of noise, so where two overlap they draw the same
detail. What differs is the normalisation, over the window instead of the whole: blending hides it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from arbiscale_jax import models

BUDGET = 4 * 2**30  # bytes of activations that a window may take, roughly
LEAST, STEP = 128, 32  # sides of windows are multiples of STEP, in input pixels
OVERLAP, DEAD = 64, 16  # input pixels: two windows share OVERLAP, and neither is looked at within DEAD of its own edge
BLOCK = 64  # side of the blocks in which noise is drawn, in latent cells


def bytes_per_pixel(model: Mapping) -> int:
    """Returns about what an input pixel takes in activations, from the widths in a `model` configuration."""
    upsampling = model["condition"]["upsampling"]
    of_encoder = 4 * 4 * model["first_stage"]["ch"] * upsampling**2  # four float32 arrays of its widest level
    of_unet = (
        8 * 4 * model["unet"]["model_channels"] * (upsampling / models.spatial_factor(model)) ** 2
    )  # it keeps skips
    return round(max(of_encoder, of_unet))


def window_side(model: Mapping) -> int | None:
    """Returns the largest side of a window in input pixels.

    None: a pixel is no whole number of latent cells, so that windows would not fit together.
    """
    if model["condition"]["upsampling"] % models.spatial_factor(model):
        return None
    return max(LEAST, int(math.sqrt(BUDGET / bytes_per_pixel(model))) // STEP * STEP)


def starts(length: int, side: int) -> list[int]:
    """Places windows along an axis: the last one ends where the axis does."""
    if length <= side:
        return [0]
    return [*range(0, length - side, side - OVERLAP), length - side]


class Span(NamedTuple):
    """What a window shows along one axis of the output."""

    first: int  # output pixel
    weight: np.ndarray  # [n] float32 > 0, falling toward edges that are not the picture's


def span(start: int, side: int, length: int, size: int) -> Span:
    """Returns the output pixels, of `size`, of input pixels start .. start + side - 1, of `length`."""
    low, high = start, min(start + side, length)
    inner = [low + DEAD if low else 0, high - DEAD if high < length else length]
    first, last = (math.ceil(edge * size / length - 0.5) for edge in inner)
    centres = (np.arange(first, min(last, size)) + 0.5) * length / size  # in input pixels
    ramp = OVERLAP - 2 * DEAD
    rising = (centres - inner[0]) / ramp if low else np.ones_like(centres)
    falling = (inner[1] - centres) / ramp if high < length else np.ones_like(centres)
    return Span(first, np.clip(np.minimum(rising, falling), 1e-3, 1).astype(np.float32))


def noise_window(normal: Callable, key, box: Sequence[int], channels: int):
    """Cuts cells of an endless field of noise.

    Args: normal, (keys [1], shape) -> [1, *shape]; key, of the field; box, (top, left, height, width) in cells, top and
      left >= -BLOCK.
    Returns: [1, height, width, channels].
    """
    top, left, height, width = box
    rows = range(top // BLOCK, (top + height - 1) // BLOCK + 1)
    columns = range(left // BLOCK, (left + width - 1) // BLOCK + 1)

    def block(y, x):
        own = jax.random.fold_in(jax.random.fold_in(key, y + 1), x + 1)
        return np.asarray(normal(own[None], (BLOCK, BLOCK, channels))[0])

    field = np.concatenate([np.concatenate([block(y, x) for x in columns], axis=1) for y in rows])
    top, left = top - rows[0] * BLOCK, left - columns[0] * BLOCK
    return field[None, top : top + height, left : left + width]


def upscale(
    shape: Sequence[int], size: Sequence[int], side: int, show: Callable, finish: Callable
) -> Iterator[tuple[int, np.ndarray]]:
    """Joins windows, band by band.

    Args: shape, (h, w) of the input; size, (H, W) of the output; side, of a window; show, (top, left, box) -> float32
      [n, m, 3], the output's pixels in box (top, left, n, m) as the window at (top, left) of the input shows them;
      finish, float32 array -> the output's values.
    Yields: (first row, rows [n, W, 3]) from the top down; together they are the output.
    """
    pending, weight, begin = None, None, 0
    for top in starts(shape[0], side):
        rows = span(top, side, shape[0], size[0])
        if not len(rows.weight):
            continue
        band, across = np.zeros((len(rows.weight), size[1], 3), np.float32), np.zeros(size[1], np.float32)
        for left in starts(shape[1], side):
            columns = span(left, side, shape[1], size[1])
            if not len(columns.weight):  # of an output that is much smaller than the input
                continue
            here = slice(columns.first, columns.first + len(columns.weight))
            box = (rows.first, columns.first, len(rows.weight), len(columns.weight))
            band[:, here] += columns.weight[:, None] * show(top, left, box)
            across[here] += columns.weight
        band *= rows.weight[:, None, None] / across[:, None]
        down = rows.weight.copy()
        if pending is not None:
            done = rows.first - begin
            yield begin, finish(pending[:done] / weight[:done, None, None])
            shared = len(pending) - done
            band[:shared] += pending[done:]
            down[:shared] += weight[done:]
        pending, weight, begin = band, down, rows.first
    yield begin, finish(pending / weight[:, None, None])
