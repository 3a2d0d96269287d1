"""Enlarges the low-resolution image to the size that E sees (paper 4.3), and pads by reflection at a border."""

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ("bilinear", "nearest", "bicubic")


def interpolate(x, size: tuple[int, int], method: str = "bilinear"):
    """Resizes images without antialiasing; pixel centres are at half-integer positions.

    "nearest" takes index floor(i * in / out) in exact integers, as PyTorch does. jax.image.resize rounds half-pixel
    centres instead, which differs at ratios that are not whole numbers.

    Args:
      x: [b h w c].
      size: (height, width) of the result.
      method: one of METHODS.

    Returns:
      [b height width c].

    Raises:
      ValueError: if the method is unknown.
    """
    if method == "nearest":
        for dim, out in zip((1, 2), size, strict=True):
            x = jnp.take(x, np.arange(out, dtype=np.int64) * x.shape[dim] // out, axis=dim)
        return x
    if method in METHODS:  # the cubic kernel of JAX has a = -0.5, as that of Pillow
        kernel = "cubic" if method == "bicubic" else method
        shape, precision = (x.shape[0], *size, x.shape[3]), jax.lax.Precision.HIGHEST
        return jax.image.resize(x, shape, kernel, antialias=False, precision=precision)
    raise ValueError(f"The interpolation is one of {', '.join(METHODS)}, got {method!r}.")


def reflect(x, dim: int, before: int, after: int):
    """Pads one dimension of x by reflection that does not repeat the border; where x is too small, by its border."""
    if not (before or after):
        return x
    widths = [(before, after) if d == dim else (0, 0) for d in range(x.ndim)]
    return jnp.pad(x, widths, mode="reflect" if max(before, after) < x.shape[dim] else "edge")


def reflect_border(x, n: int):
    """Pads [b h w c] by n on all four sides, as `reflect` does."""
    return reflect(reflect(x, 1, n, n), 2, n, n)


def cut_border(x, n: int):
    """Cuts n off all four sides of [b h w c]; this is the inverse of `reflect_border`."""
    return x[:, n : x.shape[1] - n, n : x.shape[2] - n]
