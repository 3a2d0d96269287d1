"""The window of an output that is the target, and the range of values that networks see."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from .dice import Dice, integer


def window_start(dice: Dice, size, p: int, margin: int):
    """Draws (top, left) of a window of p pixels in an output of `size`, `margin` from its border where there is room.

    Args: size, int32 [], may be traced. Returns: int32 [2].
    """
    room = size - p
    edge = jnp.minimum(margin, room // 2)
    return jnp.stack([integer(dice, edge, room - edge) for _ in range(2)])


def in_model_range(pictures: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Maps pictures in [0, 1] to [-1, 1], clipped."""
    return {name: jnp.clip(2 * x - 1, -1, 1) for name, x in pictures.items()}
