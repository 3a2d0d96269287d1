"""Describes the tiles in which images are rendered, and how they become pixels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from arbiscale_jax import models

from . import windows


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


def fill(out: np.ndarray, bands: Iterable[np.ndarray]) -> None:
    """Copies bands of rows, [n w c] from the top down, into an array [h w c]."""
    first = 0
    for rows in bands:
        out[first : first + len(rows)] = rows
        first += len(rows)


def to_integers(x, dtype: type | np.dtype | str = np.uint8, *, xp=np):
    """Maps [-1, 1] to 0 .. the largest value of the integer type, clipped and rounded; xp is numpy or jax.numpy."""
    top = np.iinfo(dtype).max
    return xp.clip(xp.round((x + 1) * (top / 2)), 0, top).astype(dtype)


class View(NamedTuple):
    """Describes what is rendered."""

    size: tuple[int, int]  # (H, W) of the whole image
    box: tuple[int, int, int, int]  # (top, left, height, width) of the window that is rendered
    dtype: str = "uint8"  # "float32" is not clipped; "uint8" and "uint16" are clipped and rounded
    statistics: str = "whole"  # one of models.STATISTICS, for D where it is applied to blocks that are blended


class Side(NamedTuple):
    """Describes how one axis of an image is rendered; a tile may extend beyond a block and beyond the image."""

    cells: int  # latent cells
    size: int  # pixels of the whole image
    finer: int  # how many times finer pixels are rendered before they are reduced
    tile: int  # pixels of a tile
    places: int  # places at which f_theta is computed; fewer than the pixels, where these are interpolated

    def lines(self, start: int, subcells: int, first: int, count: int) -> Lines:
        """Places the lines of a tile on the features of a block.

        Args:
          start: first pixel of the tile.
          subcells: sub-cells per latent cell.
          first: the sub-cell of the latent where the block's features begin; it may be negative.
          count: number of the block's sub-cells.
        """
        num, weights = self.cells * subcells, None
        if self.places < self.size:
            found = models.axis(num, self.places, *models.dense_span(start, self.tile, self.size, self.places))
            found = found._replace(cell=np.float32(2 * num / self.size))  # f_theta is told the size of a pixel
            weights = models.interpolation(start, self.tile, self.size, self.places)
        elif self.finer == 1:
            found = models.axis(num, self.size, start, self.tile)
        else:
            found = models.axis(num, *models.fine_span(start, self.tile, self.size, self.finer))
            weights = models.reduction(start, self.tile, self.size, self.finer)
        index = np.clip(found.index - first, 0, count - 1).astype(np.int32)
        return Lines(found._replace(index=index), weights)

    def shown(self, window: windows.Window, border: int) -> range:
        """Returns the pixels that a window of the bordered cells shows, at least in part."""
        low, high = window.used
        low, high = (math.ceil((edge - border) * self.size / self.cells - 0.5) for edge in (low, high))
        return range(0 if window.start == 0 else low, self.size if window.stop == self.cells + 2 * border else high)

    def weights(self, window: windows.Window, border: int, pixels: range) -> np.ndarray:
        """Returns the window's share at pixels, float32."""
        centres = (np.arange(pixels.start, pixels.stop) + 0.5) * self.cells / self.size + border
        return window.weights(centres)


def make_sides(config: Mapping, cells: Sequence[int], size: Sequence[int], tile: int) -> list[Side]:
    """Describes both axes of an image; the arguments are those of `finer`, and the side of a tile in pixels."""
    times = finer(config, cells, size)
    tile, most = tile if max(times) == 1 else max(16, 2 * tile // max(times)), config["sampling"]["densest"]
    return [
        Side(n, length, more, tile, models.dense_size(most, n, length))
        for n, length, more in zip(cells, size, times, strict=True)
    ]


def finer(config: Mapping, cells: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """Returns how many times finer the (rows, columns) of an output of `size` are rendered before they are reduced.

    Args:
      config: the `model` part of a configuration, complete.
      cells: (rows, columns) of the latent.
      size: (height, width) of the output.
    """
    least = config["sampling"]["finest"]
    height, width = (models.finer_factor(least, n, length) for n, length in zip(cells, size, strict=True))
    return height, width
