"""Enlarging the low-resolution image to the size that E sees (paper 4.3)."""

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ("bilinear", "nearest")


def interpolate(x, size: tuple[int, int], method: str = "bilinear"):
    """Resizes [b h w c] to `size` (height, width) without antialiasing, pixel centres aligned by half a pixel.

    `nearest` takes index floor(i * in / out), as PyTorch does, in exact integers; jax.image.resize rounds half-pixel
    centres instead and differs at non-integer ratios.
    Raises: ValueError for another method.
    """
    if method == "nearest":
        for dim, out in zip((1, 2), size):
            x = jnp.take(x, np.arange(out, dtype=np.int64) * x.shape[dim] // out, axis=dim)
        return x
    if method == "bilinear":
        return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False, precision="highest")
    raise ValueError(f"The interpolation is one of {', '.join(METHODS)}, got {method!r}.")
