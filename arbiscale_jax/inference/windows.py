"""Upscales a photograph that is too large for one pass in overlapping windows.

The networks see one window at a time (as in tiled diffusion: Jimenez 2023, "Mixture of Diffusers"), so the memory in
use depends on the window and the output only. All windows are cut from one padded picture and one field of noise. If no
network computes a statistic over space, a window is shown only where the networks see the picture's own pixels, and it
equals that part of one pass. Otherwise GroupNorm takes its statistics over each window and not over the whole, so that
windows differ, and blending hides the difference.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from arbiscale_jax import models

BUDGET = 4 * 2**30  # about how many bytes of activations a window may take
LEAST, STEP = 128, 32  # in input pixels: the least side of a window; larger sides are about multiples of STEP
RAMP, DEAD = 32, 16  # in input pixels: windows are blended over RAMP and not used within DEAD of their own edges
BLOCK = 64  # the side, in latent cells, of the blocks in which noise is drawn


def bytes_per_pixel(model: Mapping) -> int:
    """Estimates the bytes of activations per input pixel from the widths in a `model` configuration."""
    model = models.complete(model)
    first, upsampling = model["first_stage"], model["condition"]["upsampling"]
    cells = (upsampling / models.spatial_factor(model)) ** 2
    of_unet = 8 * 4 * model["unet"]["model_channels"] * cells  # the U-Net also keeps its skip connections
    if first["architecture"] == "linear_code":
        return round(max(of_unet, 5 * 4 * first["subcell"]["features"] * upsampling**2))
    return round(max(4 * 4 * first["ch"] * upsampling**2, of_unet))  # four float32 arrays of E's widest level


def window_side(model: Mapping) -> int | None:
    """Returns the largest side of a window in input pixels.

    It returns None if an input pixel is not a whole number of latent cells, since windows would not fit together.
    """
    if model["condition"]["upsampling"] % models.spatial_factor(model):
        return None
    return max(LEAST, int(math.sqrt(BUDGET / bytes_per_pixel(model))) // STEP * STEP)


class Plan(NamedTuple):
    """Says how a picture is padded and cut into windows; lengths are in input pixels."""

    shape: tuple[int, int]  # height and width of the picture
    sides: tuple[int, int]  # height and width of a window, without padding
    border: int  # width of the reflection on each side of the picture
    extra: tuple[int, int]  # more reflection below and to the right, so that the U-Net can halve the sides
    multiple: int  # windows begin at multiples of this length
    dead: int  # width of the parts along a window's own edges that are not used
    ramp: int  # width over which windows are blended
    ratio: float  # latent cells per pixel, a whole number if there are several windows
    exact: bool  # whether windows give the same result as one pass

    def pad(self, x):
        """Pads a picture [1 h w 3] by reflection."""
        for dim in (1, 2):
            x = models.reflect(x, dim, self.border, self.border + self.extra[dim - 1])
        return x

    def part(self, x, top: int, left: int):
        """Cuts the padded window at (top, left) out of a padded picture."""
        height, width = (side + 2 * self.border + more for side, more in zip(self.sides, self.extra, strict=True))
        return x[:, top : top + height, left : left + width]

    def cut(self, z):
        """Cuts the padding off the latents [n h w c] of a padded picture or window."""
        low = round(self.border * self.ratio)
        high = [side - low - round(more * self.ratio) for side, more in zip(z.shape[1:3], self.extra, strict=True)]
        return z[:, low : high[0], low : high[1]]

    def starts(self, axis: int) -> list[int]:
        """Returns the places where windows begin along an axis; the last window ends where the axis ends."""
        length, side = self.shape[axis], self.sides[axis]
        step = max(self.multiple, (side - 2 * self.dead - self.ramp) // self.multiple * self.multiple)
        return [*range(0, length - side, step), length - side]


def plan(model: Mapping, shape: Sequence[int], *, steps: int | None = None, whole: bool = False) -> Plan:
    """Plans how a picture is upscaled.

    Args:
      model: the `model` part of a configuration.
      shape: the shape (h, w, ...) of the picture.
      steps: the number of evaluations of the U-Net, each of which widens what a pixel depends on; None means the
        model's.
      whole: whether to upscale in one pass instead of windows.

    Returns:
      The plan.

    Raises:
      ValueError: if windows are needed and an input pixel is not a whole number of latent cells.
    """
    model, shape = models.complete(model), (shape[0], shape[1])
    ratio, sampling = model["condition"]["upsampling"] / models.spatial_factor(model), model["sampling"]
    border = math.ceil(sampling.get("border", 0) / ratio)
    while (border * ratio) % 1:
        border += 1
    reach = models.reach(model, steps or sampling["steps"])
    if reach is None:
        multiple, extra, dead, ramp = 1, (0, 0), DEAD, RAMP
    else:
        multiple = max(1, round(2 ** (len(model["unet"]["channel_mult"]) - 1) / ratio))
        extra, ramp = (-(shape[0] + 2 * border) % multiple, -(shape[1] + 2 * border) % multiple), multiple
        dead = math.ceil(reach / ratio)
    most = max(shape) if whole else window_side(model)
    if most is None:
        raise ValueError("A pixel is no whole number of latent cells, so windows would not fit together.")
    if reach is not None:
        most = max(most, 2 * dead + ramp + LEAST)  # the part of a window that is used is at least LEAST wide
    height, width = (min(n, most - (most + 2 * border + more) % multiple) for n, more in zip(shape, extra, strict=True))
    return Plan(shape, (height, width), border, extra, multiple, dead, ramp, ratio, reach is not None)


class Span(NamedTuple):
    """Says what a window shows along one axis of the output."""

    first: int  # the first output pixel
    weight: np.ndarray  # [n] float32 > 0, the weights for blending, which fall toward edges inside the picture


def span(plan: Plan, axis: int, start: int, size: int) -> Span:
    """Returns what the window from input pixel `start` on shows along an axis of the output, of `size` pixels."""
    length = plan.shape[axis]
    low, high = start, min(start + plan.sides[axis], length)
    inner = [low + plan.dead if low else 0, high - plan.dead if high < length else length]
    first, last = (math.ceil(edge * size / length - 0.5) for edge in inner)
    centres = (np.arange(first, min(last, size)) + 0.5) * length / size  # in input pixels
    rising = (centres - inner[0]) / plan.ramp if low else np.ones_like(centres)
    falling = (inner[1] - centres) / plan.ramp if high < length else np.ones_like(centres)
    return Span(first, np.clip(np.minimum(rising, falling), 1e-3, 1).astype(np.float32))


def noise_window(normal: Callable, key, box: Sequence[int], channels: int):
    """Cuts a window of cells out of an endless field of noise.

    Args:
      normal: (keys [1], shape) -> standard normal numbers [1, *shape].
      key: the key of the field.
      box: (top, left, height, width) in cells, with top and left >= -BLOCK.
      channels: the number of channels.

    Returns:
      The noise, [1, height, width, channels].
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


def upscale(plan: Plan, size: Sequence[int], show: Callable, finish: Callable) -> Iterator[tuple[int, np.ndarray]]:
    """Joins windows to the output, one band of rows after another.

    Args:
      plan: the plan.
      size: (H, W) of the output.
      show: (top, left, box) -> float32 [n, m, 3], the pixels of the output in box (top, left, n, m) as the window at
        (top, left) of the input shows them.
      finish: float32 array -> the values of the output.

    Yields:
      Pairs (first row, rows [n, W, 3]) from the top down, which together are the output.
    """
    pending, weight, begin = np.zeros((0, size[1], 3), np.float32), np.zeros(0, np.float32), 0
    for top in plan.starts(0):
        rows = span(plan, 0, top, size[0])
        if not len(rows.weight):
            continue
        band, across = np.zeros((len(rows.weight), size[1], 3), np.float32), np.zeros(size[1], np.float32)
        for left in plan.starts(1):
            columns = span(plan, 1, left, size[1])
            if not len(columns.weight):  # happens if the output is much smaller than the input
                continue
            here = slice(columns.first, columns.first + len(columns.weight))
            box = (rows.first, columns.first, len(rows.weight), len(columns.weight))
            band[:, here] += columns.weight[:, None] * show(top, left, box)
            across[here] += columns.weight
        band *= rows.weight[:, None, None] / across[:, None]
        down = rows.weight.copy()
        if len(pending):
            done = rows.first - begin
            yield begin, finish(pending[:done] / weight[:done, None, None])
            shared = len(pending) - done
            band[:shared] += pending[done:]
            down[:shared] += weight[done:]
        pending, weight, begin = band, down, rows.first
    yield begin, finish(pending / weight[:, None, None])
