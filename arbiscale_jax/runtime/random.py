"""Derives keys of random numbers by name, so that each key is used once."""

import zlib

import jax
import numpy as np


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """Derives the key for one use of randomness from its name; different names give independent keys.

    In JAX `split(key)[i]` and `fold_in(key, i)` are the same key, so keys that are numbered in two ways can coincide.
    The hash of a name is a large number and does not coincide with small ones.
    """
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
