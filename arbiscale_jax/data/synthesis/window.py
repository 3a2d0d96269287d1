"""Draws the window of an output that is the target, and maps pictures to the range that networks see."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from .dice import Dice, integer


def window_start(dice: Dice, size, p: int, margin: int):
    """Draws where the target window lies in an output.

    Args:
      dice: source of random numbers.
      size: side of the output in pixels, int32 []; it may be traced.
      p: side of the window in pixels.
      margin: least distance of the window from the border, in pixels; it is less where there is no room.

    Returns:
      (top, left) of the window, int32 [2].
    """
    room = size - p
    edge = jnp.minimum(margin, room // 2)
    return jnp.stack([integer(dice, edge, room - edge) for _ in range(2)])


def in_model_range(pictures: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Maps pictures from [0, 1] to [-1, 1] and clips them."""
    return {name: jnp.clip(2 * x - 1, -1, 1) for name, x in pictures.items()}
