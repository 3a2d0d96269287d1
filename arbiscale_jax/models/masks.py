"""Lets networks compute on pictures that are smaller than the arrays in which they lie.

Arrays of a few fixed shapes then serve pictures of all sizes. Inside `masked`, cells outside the pictures are zero for
every convolution, and norms and attention leave them out. Each picture gets the values that it would get in an array of
its own size, up to rounding. Several pictures may lie in one array if no network computes a statistic over space: they
need a gap of one cell at the coarsest level, where every picture begins and ends at the border of a cell.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from .layers import Attention, GroupNorm


def resize_mask(inside, height: int, width: int):
    """Returns the mask of the same pictures on a grid that is a whole number of times finer or coarser.

    Args:
      inside: [b h w], true where a cell belongs to a picture.
      height: number of rows of the new grid.
      width: number of its columns.

    Returns:
      [b height width], bool.
    """
    for dim, length in ((1, height), (2, width)):
        old = inside.shape[dim]
        if length > old:
            inside = jnp.repeat(inside, length // old, axis=dim)
        elif length < old:
            step = old // length
            inside = inside[:, ::step] if dim == 1 else inside[:, :, ::step]
    return inside


@contextmanager
def masked(inside) -> Iterator[None]:
    """Makes networks that are applied inside the block ignore cells outside the pictures.

    Args:
      inside: [b h w], true where a cell belongs to a picture, at a resolution from which that of each layer differs by
        a whole factor; None means that everything belongs to a picture.
    """
    if inside is None:
        yield
        return

    def intercept(call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, (nn.Conv, GroupNorm, Attention)):
            return call(*args, **kwargs)
        x, *rest = args
        if isinstance(module, nn.Conv) and set(np.atleast_1d(module.kernel_size)) == {1}:
            return call(*args, **kwargs)
        here = resize_mask(inside, x.shape[1], x.shape[2])
        if isinstance(module, nn.Conv):
            return call(blank(x, here), *rest, **kwargs)
        return call(x, *rest, inside=here, **kwargs)

    with nn.intercept_methods(intercept):
        yield


def blank(x, inside):
    """Returns x [b h w c] with zeros where `inside` [b h w] is false, and x itself if `inside` is None."""
    return x if inside is None else jnp.where(inside[..., None], x, jnp.zeros((), x.dtype))
