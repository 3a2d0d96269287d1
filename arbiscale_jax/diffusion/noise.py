"""Draws standard normal noise that belongs to places, so that it does not depend on how a picture is cut up."""

import jax
import jax.numpy as jnp


def cell_noise(key, cells, draw, channels: int):
    """Draws noise for latent cells; the numbers of a cell depend on key, draw and the cell's name alone.

    Args:
      key: a random key, one for all cells.
      cells: the cells' names, integers [b h w 3]: the number of the answer, and the row and column in the whole latent,
        which may be negative.
      draw: number of the drawing, such as the number of the sampler's step; it may be traced.
      channels: numbers per cell.

    Returns:
      Standard normal float32 [b h w channels].
    """
    names = jnp.asarray(cells).astype(jnp.uint32).reshape(-1, 3)
    key = jax.random.fold_in(key, draw)

    def normal(name):
        own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, name[0]), name[1]), name[2])
        return jax.random.normal(own, (channels,))

    return jax.vmap(normal)(names).reshape(*cells.shape[:3], channels)
