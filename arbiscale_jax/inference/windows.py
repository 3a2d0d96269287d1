"""Upscaling a photograph that is too large for one pass: in overlapping windows.

The networks see a window at a time (as tiled diffusion does: Jimenez 2023, "Mixture of Diffusers"), so memory is
bounded by the window and the output. All windows cut one padded picture and one field of noise. Where no network has a
statistic over space, a window shows the picture's own pixels as far from its edges as the networks see; otherwise
GroupNorm's statistics, over the window instead of the whole, tell windows apart, and blending hides it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from arbiscale_jax import models

BUDGET = 4 * 2**30  # bytes of activations that a window may take, roughly
LEAST, STEP = 128, 32  # sides of windows are about multiples of STEP, in input pixels
RAMP, DEAD = 32, 16  # input pixels: windows are blended over RAMP, and not looked at within DEAD of their own edges
BLOCK = 64  # side of the blocks in which noise is drawn, in latent cells


def bytes_per_pixel(model: Mapping) -> int:
    """Returns about what an input pixel takes in activations, from the widths in a `model` configuration."""
    model = models.complete(model)
    first, upsampling = model["first_stage"], model["condition"]["upsampling"]
    cells = (upsampling / models.spatial_factor(model)) ** 2
    of_unet = 8 * 4 * model["unet"]["model_channels"] * cells  # it keeps skips
    if first["architecture"] == "linear_code":
        return round(max(of_unet, 5 * 4 * first["subcell"]["features"] * upsampling**2))
    return round(max(4 * 4 * first["ch"] * upsampling**2, of_unet))  # four float32 arrays of E's widest level


def window_side(model: Mapping) -> int | None:
    """Returns the largest side of a window in input pixels.

    None: a pixel is no whole number of latent cells, so that windows would not fit together.
    """
    if model["condition"]["upsampling"] % models.spatial_factor(model):
        return None
    return max(LEAST, int(math.sqrt(BUDGET / bytes_per_pixel(model))) // STEP * STEP)


class Plan(NamedTuple):
    """How a picture is padded and cut; lengths in input pixels."""

    shape: tuple[int, int]
    sides: tuple[int, int]  # of what a window shows, without what is padded
    border: int  # reflected around the picture
    extra: tuple[int, int]  # reflected below and to the right, so that a U-Net's levels divide
    multiple: int  # windows begin at multiples of it
    dead: int  # of a window's own edges, not looked at
    ramp: int  # over which windows are blended
    ratio: float  # latent cells per pixel, a whole number where there are several windows
    exact: bool  # whether windows equal the whole

    def pad(self, x):
        """Pads a picture [1 h w 3] by reflection."""
        for dim in (1, 2):
            x = models.reflect(x, dim, self.border, self.border + self.extra[dim - 1])
        return x

    def part(self, x, top: int, left: int):
        """Cuts the padded window at (top, left) out of a padded picture."""
        height, width = (side + 2 * self.border + more for side, more in zip(self.sides, self.extra))
        return x[:, top : top + height, left : left + width]

    def cut(self, z):
        """Takes what was padded off the latents [n h w c] of a padded picture or window."""
        low = round(self.border * self.ratio)
        high = [side - low - round(more * self.ratio) for side, more in zip(z.shape[1:3], self.extra)]
        return z[:, low : high[0], low : high[1]]

    def starts(self, axis: int) -> list[int]:
        """Places windows along an axis: the last one ends where the axis does."""
        length, side = self.shape[axis], self.sides[axis]
        step = max(self.multiple, (side - 2 * self.dead - self.ramp) // self.multiple * self.multiple)
        return [*range(0, length - side, step), length - side]


def plan(model: Mapping, shape: Sequence[int], *, steps: int | None = None, whole: bool = False) -> Plan:
    """Plans how a picture of `shape` (h, w, ...) is upscaled, in windows or, where `whole`, in one pass.

    Args: steps, evaluations of the U-Net, default the model's own: each sees further.
    """
    model, shape = models.complete(model), tuple(shape[:2])
    ratio, sampling = model["condition"]["upsampling"] / models.spatial_factor(model), model["sampling"]
    border = math.ceil(sampling.get("border", 0) / ratio)
    while (border * ratio) % 1:
        border += 1
    reach = models.reach(model, steps or sampling["steps"])
    if reach is None:
        multiple, extra, dead, ramp = 1, (0, 0), DEAD, RAMP
    else:
        multiple = max(1, round(2 ** (len(model["unet"]["channel_mult"]) - 1) / ratio))
        extra, ramp = tuple(-(length + 2 * border) % multiple for length in shape), multiple
        dead = math.ceil(reach / ratio)
    most = max(shape) if whole else window_side(model)
    if reach is not None:
        most = max(most, 2 * dead + ramp + LEAST)  # what a window shows is at least LEAST wide
    sides = (min(n, most - (most + 2 * border + more) % multiple) for n, more in zip(shape, extra))
    return Plan(shape, tuple(sides), border, extra, multiple, dead, ramp, ratio, reach is not None)


class Span(NamedTuple):
    """What a window shows along one axis of the output."""

    first: int  # output pixel
    weight: np.ndarray  # [n] float32 > 0, falling toward edges that are not the picture's


def span(plan: Plan, axis: int, start: int, size: int) -> Span:
    """Returns the output pixels, of `size`, that the window from input pixel `start` on shows along an axis."""
    length = plan.shape[axis]
    low, high = start, min(start + plan.sides[axis], length)
    inner = [low + plan.dead if low else 0, high - plan.dead if high < length else length]
    first, last = (math.ceil(edge * size / length - 0.5) for edge in inner)
    centres = (np.arange(first, min(last, size)) + 0.5) * length / size  # in input pixels
    rising = (centres - inner[0]) / plan.ramp if low else np.ones_like(centres)
    falling = (inner[1] - centres) / plan.ramp if high < length else np.ones_like(centres)
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


def upscale(plan: Plan, size: Sequence[int], show: Callable, finish: Callable) -> Iterator[tuple[int, np.ndarray]]:
    """Joins windows, band by band.

    Args: size, (H, W) of the output; show, (top, left, box) -> float32 [n, m, 3], the output's pixels in box (top,
      left, n, m) as the window at (top, left) of the input shows them; finish, float32 array -> the output's values.
    Yields: (first row, rows [n, W, 3]) from the top down; together they are the output.
    """
    pending, weight, begin = None, None, 0
    for top in plan.starts(0):
        rows = span(plan, 0, top, size[0])
        if not len(rows.weight):
            continue
        band, across = np.zeros((len(rows.weight), size[1], 3), np.float32), np.zeros(size[1], np.float32)
        for left in plan.starts(1):
            columns = span(plan, 1, left, size[1])
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
