"""Renders windows of images of any size, which need not exist as a whole, from latents of any size."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from arbiscale_jax import models

from . import frames, windows
from .engine import Engine
from .memory import decoding_bytes, largest_side
from .tiles import Lines, to_integers

BLOCK = 256  # side of the blocks of latent cells, without borders, to which D is applied where it sees a window alone
BAND_BYTES = 2**28  # size of the parts of an image that are made at a time


class View(NamedTuple):
    """Describes what is rendered."""

    size: tuple[int, int]  # (H, W) of the whole image
    box: tuple[int, int, int, int]  # (top, left, height, width) of the window that is rendered
    dtype: str = "uint8"  # "float32" is not clipped; "uint8" and "uint16" are clipped and rounded


class Side(NamedTuple):
    """Describes how one axis of an image is rendered; a tile may extend beyond a block and beyond the image."""

    cells: int  # latent cells
    size: int  # pixels of the whole image
    finer: int  # how many times finer pixels are rendered before they are reduced
    tile: int  # pixels of a tile

    def lines(self, start: int, subcells: int, first: int, count: int) -> Lines:
        """Places the lines of a tile on the features of a block.

        Args:
          start: first pixel of the tile.
          subcells: sub-cells per latent cell.
          first: the sub-cell of the latent where the block's features begin; it may be negative.
          count: number of the block's sub-cells.
        """
        num, weights = self.cells * subcells, None
        if self.finer == 1:
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


class Renderer:
    """Renders one latent. D is applied to blocks, and f_theta to tiles that are fixed to the whole image.

    So a pixel is computed in the same way whichever window contains it, and a window has the same bytes as that part of
    the whole image.

    Args:
      engine: networks and weights.
      z: the latent [h, w, c], on the host.
      view: what is rendered.
      most: largest side of a block in latent cells, by default BLOCK, or if D has a statistic over space, as many as
        fit in memory.
    """

    def __init__(self, engine: Engine, z: np.ndarray, view: View, most: int | None = None):
        self.engine, self.z, self.view = engine, z, view
        self.border, reach = engine.networks.border, models.decoder_reach(engine.config)
        overlap = windows.Overlap(windows.DEAD, windows.RAMP) if reach is None else windows.Overlap(reach + 2)
        if most is None:
            most = largest_side(decoding_bytes(engine.config)) if reach is None else BLOCK
        most += 2 * self.border
        times = finer(engine.config, z.shape[:2], view.size)
        tile = engine.tile if max(times) == 1 else max(16, 2 * engine.tile // max(times))
        self.sides = [Side(z.shape[dim], view.size[dim], times[dim], tile) for dim in (0, 1)]
        self.rows, self.cols = (windows.cut(n + 2 * self.border, most, overlap) for n in z.shape[:2])
        longest = [max(window.length for window in side) for side in (self.rows, self.cols)]
        self.sheet = [frames.sheet_side(n, 2 * self.border) for n in longest]
        self._kept: tuple[Any, Any] = (None, None)  # the last block and its features

    def bands(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (first row within the box, rows [n, width, 3]) from the top down."""
        (top, left, height, width), dtype = self.view.box, self.view.dtype
        blended = len(self.rows) * len(self.cols) > 1 and models.decoder_reach(self.engine.config) is None
        inner, finish = ("float32", partial(to_integers, dtype=dtype)) if blended else (dtype, None)
        step = max(1, BAND_BYTES // (12 * width) // self.sides[0].tile) * self.sides[0].tile
        first = top
        while first < top + height:
            stop = min(top + height, first // step * step + step)
            if not blended:
                ends = [self.sides[0].shown(row, self.border).stop for row in self.rows]
                stop = min(stop, next(end for end in ends if end > first))
            out = np.zeros((stop - first, width, 3), inner)
            for row in self.rows:
                for col in self.cols:
                    self._draw(out, (row, col), range(first, stop), range(left, left + width), blended)
            yield first - top, finish(out) if finish and dtype != "float32" else out
            first = stop

    def _draw(self, out: np.ndarray, block, rows: range, cols: range, blended: bool) -> None:
        """Draws the share of a block in the given rows and columns of the image."""
        shown = [
            _common(side.shown(window, self.border), pixels)
            for side, window, pixels in zip(self.sides, block, (rows, cols), strict=True)
        ]
        if not all(shown):
            return
        features, networks = self._features(block), self.engine.networks
        weights = [
            side.weights(window, self.border, pixels)
            for side, window, pixels in zip(self.sides, block, shown, strict=True)
        ]
        first = [(window.start - self.border) * networks.subcells for window in block]
        lines = [
            {
                at: side.lines(at, networks.subcells, start, count)
                for at in range(pixels.start // side.tile * side.tile, pixels.stop, side.tile)
            }
            for side, pixels, start, count in zip(self.sides, shown, first, features.shape[1:3], strict=True)
        ]
        kind = str(out.dtype)

        def place(y, x, tile):
            ys, xs = (_common(range(at, at + s.tile), p) for at, s, p in zip((y, x), self.sides, shown, strict=True))
            inside = np.asarray(tile)[0, ys.start - y : ys.stop - y, xs.start - x : xs.stop - x]
            to = out[ys.start - rows.start : ys.stop - rows.start, xs.start - cols.start : xs.stop - cols.start]
            if blended:
                share = [
                    w[p.start - q.start : p.stop - q.start] for w, p, q in zip(weights, (ys, xs), shown, strict=True)
                ]
                to += share[0][:, None, None] * share[1][None, :, None] * inside
            else:
                to[:] = inside

        waiting = None  # the next tile is computed while one is copied
        for y, row in lines[0].items():
            for x, col in lines[1].items():
                now = (y, x, networks.run_tile(self.engine.params, features, row, col, dtype=kind))
                if waiting:
                    place(*waiting)
                waiting = now
        if waiting:
            place(*waiting)

    def _features(self, block) -> jax.Array:
        """Returns D's features [1 h' w' d] of a block, of which the last is kept."""
        if self._kept[0] != block:
            networks, border = self.engine.networks, self.border
            index = [
                frames.reflected(n, -border, n + border)[window.start : window.stop]
                for n, window in zip(self.z.shape, block, strict=False)
            ]
            z = np.zeros((1, *self.sheet, self.z.shape[-1]), np.float32)
            height, width = (len(one) for one in index)
            z[0, :height, :width] = self.z[index[0]][:, index[1]]
            inside = frames.rectangles((1, self.sheet[0], self.sheet[1]), [(0, 0, 0, height, width)])
            self._kept = (block, networks.run_features(self.engine.params, z, inside))
        return self._kept[1]


def _common(a: range, b: range) -> range:
    """Returns what two ranges have in common."""
    return range(max(a.start, b.start), max(max(a.start, b.start), min(a.stop, b.stop)))
