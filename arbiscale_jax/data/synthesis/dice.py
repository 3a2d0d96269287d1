"""Many single random numbers from one key, drawn at once: a compiled program holds one generator instead of dozens."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

Dice = Iterator[jax.Array]  # of numbers from [0, 1), []; each function below takes the next one


def make_dice(key, count: int) -> Dice:
    """Draws `count` uniform numbers; taking more than that raises StopIteration while the program is traced."""
    return iter(list(jax.random.uniform(key, (count,))))


def uniform(dice: Dice, low, high):
    """Draws a number from [low, high); the bounds may be traced."""
    return low + (high - low) * next(dice)


def coin(dice: Dice, chance):
    """Draws True with a chance, which may be traced."""
    return next(dice) < chance


def integer(dice: Dice, low, high):
    """Draws a whole number, low <= i <= high, as int32; the bounds may be traced and are below 2^20."""
    return jnp.minimum(low + jnp.floor((high - low + 1) * next(dice)).astype(jnp.int32), high)
