"""Checks what callers give: images, sizes, windows, whole numbers, and whether a result fits in memory."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.errors import UserError

from .memory import physical_memory

MAX_SCALE = 2.0**30
MAX_SIDE = 2**40  # up to this side, int64 arithmetic on positions is exact


def whole(value, name: str, least: int) -> int:
    """Returns `value` as an int, and raises UserError unless it is a whole number >= least."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UserError(f"{name} is a whole number >= {least}, got {value!r}.")
    return int(value)


def check_latents(z, channels: int) -> np.ndarray:
    """Returns `z` as a float32 array on the host, and raises UserError unless it is [b, h, w, channels] with cells."""
    z = np.asarray(z, np.float32)
    check_latent_shapes(channels, z)
    return z


def check_latent_shapes(channels: int, z, c=None) -> None:
    """Raises UserError unless z is [b, h, w, channels] with cells, and the condition c is None or of the same shape."""
    shape = np.shape(z)
    if len(shape) != 4 or shape[-1] != channels or 0 in shape[1:3]:
        raise UserError(f"Latents are [b, h, w, {channels}], got {list(shape)}.")
    if c is not None and np.shape(c) != shape:
        raise UserError(f"The condition has the shape of the latents, {list(shape)}, got {list(np.shape(c))}.")


def check_images(x, least: int = 1) -> jax.Array:
    """Returns `x` as a float32 array, and raises UserError unless it is [b, H, W, 3] with sides of at least `least`."""
    x = jnp.asarray(x, jnp.float32)
    if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < least:
        raise UserError(f"Images are float32 [b, H, W, 3] of at least {least} pixels per side, got {list(x.shape)}.")
    return x


def check_size(size) -> tuple[int, int]:
    """Returns (height, width) as ints, and raises UserError unless both are whole numbers from 1 to 2^40."""
    try:
        height, width = (int(side) for side in size)
        exact = (height, width) == tuple(size)
    except (TypeError, ValueError, OverflowError):
        height, width, exact = 0, 0, False
    if not exact or not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UserError(f"size is (height, width), whole numbers of pixels from 1 to 2^40, got {size!r}.")
    return height, width


def check_box(box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width), which is the whole image for None.

    Raises:
      UserError: if the box is not of whole numbers, or does not lie inside `size`.
    """
    if box is None:
        return (0, 0, *size)
    try:
        top, left, height, width = (int(x) for x in box)
        exact = (top, left, height, width) == tuple(box)
    except (TypeError, ValueError, OverflowError):
        top, left, height, width, exact = 0, 0, 0, 0, False
    if not exact:
        raise UserError(f"box is (top, left, height, width) in whole pixels, got {box!r}.")
    if top < 0 or left < 0 or height < 1 or width < 1 or top + height > size[0] or left + width > size[1]:
        raise UserError(
            f"The box {tuple(box)} (top, left, height, width) does not lie inside the image of {size[0]} x {size[1]}."
        )
    return top, left, height, width


def output_size(shape: Sequence[int], scale: float | None, size: Sequence[int] | None) -> tuple[int, int]:
    """Returns the output (height, width) for an image: `size`, or round(scale h) x round(scale w).

    Args:
      shape: (h, w) of the image.
      scale: a factor above 0, or None.
      size: (height, width), or None.

    Returns:
      The (height, width) of the output.

    Raises:
      UserError: if not exactly one of them is given, or the scale is not a finite number > 0 that leaves at least a
        pixel.
    """
    if size is not None and scale is None:
        return check_size(size)
    if scale is None or size is not None:
        raise UserError("Give either scale or size.")
    try:
        scale = float(scale)
    except (TypeError, ValueError) as e:
        raise UserError(f"scale is a number > 0, got {scale!r}.") from e
    if not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        raise UserError(f"scale is a finite number > 0 (up to {MAX_SCALE:.0f}), got {scale}.")
    height, width = (round(side * scale) for side in shape)
    if not (height and width):
        raise UserError(f"scale {scale} leaves nothing of an image of {shape[0]} x {shape[1]}.")
    return height, width


def check_memory(shape: Sequence[int], dtype) -> None:
    """Raises UserError if an array of this shape is larger than the machine's memory."""
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed > physical_memory():
        raise UserError(
            f"An output of {' x '.join(map(str, shape))} takes {needed / 2**30:.0f} GiB, "
            "more than this machine's memory; "
            "render windows of it with render(z, size, box=(top, left, height, width))."
        )
