"""Augments a region of a picture: mirroring, turning and recolouring make more examples of few pictures."""

import jax.numpy as jnp
import numpy as np

from .dice import Dice, coin, integer, uniform

RECOLOUR_SHARE = 0.12  # share of examples whose channels get another order and are each multiplied by a gain
WEAKEST = 0.4  # smallest gain of a channel
SATURATE_SHARE = 0.06  # share whose colours move away from grey, by a factor of 1.5 to 3
GREY_SHARE = 0.08  # share that become grey
FLAT_SHARE = 0.08  # share that lose contrast and become darker or brighter
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of BT.601
_ORDERS = np.array([[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], np.int32)


def turn(dice: Dice, region):
    """Mirrors a square region [R R 3] along each axis and along its diagonal, each with probability 1/2."""
    region = jnp.where(coin(dice, 0.5), region[:, ::-1], region)
    region = jnp.where(coin(dice, 0.5), region[::-1], region)
    return jnp.where(coin(dice, 0.5), region.swapaxes(0, 1), region)


def recolour(dice: Dice, region):
    """Changes the colours of a region [R R 3] in [0, 1] with the probabilities above -> [R R 3] in [0, 1].

    Each of the changes is affine, so together they are affine as well: one matrix product per pixel.
    """
    matrix, shift = jnp.eye(3), jnp.zeros(3)
    gains = jnp.stack([uniform(dice, WEAKEST, 1.0) for _ in range(3)])
    order = jnp.asarray(_ORDERS)[integer(dice, 0, len(_ORDERS) - 1)]
    matrix = jnp.where(coin(dice, RECOLOUR_SHARE), gains[:, None] * jnp.eye(3)[order], matrix)
    grey = jnp.broadcast_to(_GREY, (3, 3))
    distance = jnp.where(coin(dice, SATURATE_SHARE), uniform(dice, 1.5, 3.0), 1.0)
    distance = jnp.where(coin(dice, GREY_SHARE), 0.0, distance)
    matrix = (grey + distance * (jnp.eye(3) - grey)) @ matrix
    flat, contrast, lift = coin(dice, FLAT_SHARE), uniform(dice, 0.2, 0.8), uniform(dice, -0.25, 0.25)
    centre = matrix @ jnp.mean(region, axis=(0, 1))
    shift = jnp.where(flat, (1 - contrast) * centre + lift, shift)
    matrix = jnp.where(flat, contrast, 1.0) * matrix
    coloured = jnp.einsum("dc,hwc->hwd", matrix, region, precision="highest")
    return jnp.clip(coloured + jnp.broadcast_to(shift, (1, 1, 3)), 0, 1)
