"""Draws many single random numbers from one key at once.

A compiled program then has one random generator instead of dozens.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

Dice = Iterator[jax.Array]  # numbers in [0, 1), each []; each function below takes the next one


def make_dice(key, count: int) -> Dice:
    """Draws `count` uniform numbers in [0, 1); taking more of them raises StopIteration while the program is traced."""
    return iter(list(jax.random.uniform(key, (count,))))


def uniform(dice: Dice, low, high):
    """Draws a uniform number from [low, high); the bounds may be traced."""
    return low + (high - low) * next(dice)


def coin(dice: Dice, chance):
    """Draws True with a probability, which may be traced."""
    return next(dice) < chance


def integer(dice: Dice, low, high):
    """Draws a whole number i with low <= i <= high, int32; the bounds may be traced and must be below 2^20."""
    return jnp.minimum(low + jnp.floor((high - low + 1) * next(dice)).astype(jnp.int32), high)
