"""Enlarging the low-resolution image to the size that E sees (paper 4.3); reflecting what lies at a border."""

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ("bilinear", "nearest", "bicubic")


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
    if method in METHODS:  # JAX's cubic kernel has a = -0.5, as Pillow's
        kernel = "cubic" if method == "bicubic" else method
        return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), kernel, antialias=False, precision="highest")
    raise ValueError(f"The interpolation is one of {', '.join(METHODS)}, got {method!r}.")


def reflect(x, dim: int, before: int, after: int):
    """Pads one dimension of x by reflection without repeating the border, or by the border where x is too small."""
    if not (before or after):
        return x
    widths = [(before, after) if d == dim else (0, 0) for d in range(x.ndim)]
    return jnp.pad(x, widths, mode="reflect" if max(before, after) < x.shape[dim] else "edge")


def reflect_border(x, n: int):
    """Pads [b h w c] by n on all four sides, as `reflect`."""
    return reflect(reflect(x, 1, n, n), 2, n, n)


def cut_border(x, n: int):
    """Takes n off all four sides of [b h w c]: the inverse of `reflect_border`."""
    return x[:, n : x.shape[1] - n, n : x.shape[2] - n]
