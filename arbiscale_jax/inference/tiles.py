"""Describes the tiles in which images are rendered, and how they become pixels."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from arbiscale_jax import models


class Lines(NamedTuple):
    """Describes the rows or columns of a tile: where they are rendered, and how the output's are made from them."""

    axis: models.Axis  # places of the rendered lines
    weights: Any = None  # [tile, rendered]; None means that the rendered lines are the output's


def reduce_lines(x, rows: Lines, cols: Lines):
    """Reduces rendered lines [b p q 3] to the lines of the output, [b tile tile 3]."""
    if rows.weights is not None:
        x = jnp.einsum("ip,bpqc->biqc", rows.weights, x, precision="highest")
    if cols.weights is not None:
        x = jnp.einsum("jq,bpqc->bpjc", cols.weights, x, precision="highest")
    return x


def finish(x, dtype: str):
    """Maps [-1, 1] to 0 .. the largest value of an integer type, clipped and rounded; float32 stays as it is."""
    if dtype == "float32":
        return x
    top = np.iinfo(dtype).max
    return jnp.clip(jnp.round((x + 1) * (top / 2)), 0, top).astype(dtype)


def to_integers(x: np.ndarray, dtype: type | np.dtype | str = np.uint8) -> np.ndarray:
    """Maps [-1, 1] to 0 .. the largest value of the integer type, clipped and rounded, on the host."""
    top = np.iinfo(dtype).max
    return np.clip(np.round((x + 1) * (top / 2)), 0, top).astype(dtype)
