"""Makes keys of random numbers from seeds, and derives keys by name, so that each key is used once."""

import hashlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.errors import UserError

_WORD = 2**32  # JAX and grain take seeds below this; of a larger one they would use the lower 32 bits alone


def whole_seed(seed) -> int:
    """Returns a seed as an int, and raises UserError unless it is a whole number >= 0; it may have any size."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"seed is a whole number >= 0, got {seed!r}.")
    return int(seed)


def seed_key(seed) -> jax.Array:
    """Returns the random key of a seed.

    It is jax.random.key(seed) for a seed below 2^32. The key of a larger seed is a SHA-256 of its hexadecimal digits,
    with the highest bit set, which no key of a smaller seed has.

    Args:
      seed: a whole number >= 0 of any size, such as time.time_ns() or random.getrandbits(128).

    Raises:
      UserError: if it is something else.
    """
    seed = whole_seed(seed)
    small = jax.random.key(seed % _WORD)
    if seed < _WORD:
        return small
    words = np.frombuffer(_digest(seed), ">u4").astype(np.uint32)
    words[0] |= np.uint32(_WORD // 2)
    shape = jax.random.key_data(small).shape
    return jax.random.wrap_key_data(jnp.asarray(np.resize(words, shape)), impl=jax.random.key_impl(small))


def word_seed(seed) -> int:
    """Returns a seed for generators of 32 bits: a seed below 2^32 itself, and 32 bits of a hash of a larger one.

    Raises:
      UserError: if the seed is no whole number >= 0.
    """
    seed = whole_seed(seed)
    return seed if seed < _WORD else int.from_bytes(_digest(seed)[:4], "big")


def _digest(seed: int) -> bytes:
    return hashlib.sha256(f"{seed:x}".encode()).digest()


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """Derives the key for one use of randomness from its name; different names give independent keys.

    In JAX `split(key)[i]` and `fold_in(key, i)` are the same key, so keys that are numbered in two ways can coincide.
    The hash of a name is a large number and does not coincide with small ones.
    """
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
