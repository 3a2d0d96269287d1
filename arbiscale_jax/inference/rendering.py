"""Renders windows of images of any size, which need not exist as a whole, from latents of any size."""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from arbiscale_jax import models

from . import frames, windows
from .engine import Engine
from .kept_features import Kept
from .memory import decoding_bytes, largest_side, lasting_memory
from .shared_statistics import core, gather, shared_programs
from .tiles import View, make_sides, to_integers

BLOCK = 320  # side of the blocks of latent cells, without borders, to which D is applied where it sees a window alone
BAND_BYTES = 2**28  # size of the parts of an image that are made at a time


class Placed(NamedTuple):
    """Holds D's features of several latents, and where one of these lies."""

    features: jax.Array  # [1 h w d]
    top: int  # the cell where the latent with its border begins
    left: int


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
      placed: D's features, if they have been computed together with others.
      keep: how many bytes of D's features are kept; those of the last block are kept in any case.
    """

    def __init__(
        self,
        engine: Engine,
        z: np.ndarray,
        view: View,
        most: int | None = None,
        placed: Placed | None = None,
        keep: int = 0,
    ):
        self.engine, self.z, self.view, self.placed = engine, z, view, placed
        self.border, reach = engine.networks.border, models.decoder_reach(engine.config)
        overlap = windows.Overlap(windows.DEAD, windows.RAMP) if reach is None else windows.Overlap(reach + 2)
        if most is None:
            most = BLOCK
            if reach is None:
                most = largest_side(decoding_bytes(engine.config), lasting_memory(), most=max(z.shape[:2]))
        most += 2 * self.border
        self.sides = make_sides(engine.config, z.shape[:2], view.size, engine.tile)
        self.rows, self.cols = (windows.cut(n + 2 * self.border, most, overlap) for n in z.shape[:2])
        self.sheet = [
            frames.sheet_side(max(window.length for window in side), 2 * self.border, windows=len(side))
            for side in (self.rows, self.cols)
        ]
        self.blended = reach is None and len(self.rows) * len(self.cols) > 1
        self.kept = Kept({}, keep)

    def viewing(self, view: View) -> "Renderer":
        """Returns a renderer of another view of the same latent, with the same statistics, that shares what is kept."""
        other = copy.copy(self)
        other.view, other.sides = view, make_sides(self.engine.config, self.z.shape[:2], view.size, self.engine.tile)
        return other

    def bands(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (first row within the box, rows [n, width, 3]) from the top down."""
        (top, left, height, width), dtype, blended = self.view.box, self.view.dtype, self.blended
        step = max(1, BAND_BYTES // (12 * width) // self.sides[0].tile) * self.sides[0].tile
        first = top
        while first < top + height:
            stop = min(top + height, first // step * step + step)
            if not blended:
                ends = [self.sides[0].shown(row, self.border).stop for row in self.rows]
                stop = min(stop, next(end for end in ends if end > first))
            out = np.zeros((stop - first, width, 3), "float32" if blended else dtype)
            for row in self.rows:
                for col in self.cols:
                    self._draw(out, (row, col), range(first, stop), range(left, left + width))
            yield first - top, to_integers(out, dtype) if out.dtype != dtype else out
            first = stop

    def _draw(self, out: np.ndarray, block, rows: range, cols: range) -> None:
        """Draws the share of a block in the given rows and columns of the image."""
        shown = [
            _common(side.shown(window, self.border), pixels)
            for side, window, pixels in zip(self.sides, block, (rows, cols), strict=True)
        ]
        if not all(shown):
            return
        features, networks = self._features(block), self.engine.networks
        corner = (self.placed.top, self.placed.left) if self.placed else (0, 0)
        first = [
            (window.start - self.border - start) * networks.subcells
            for window, start in zip(block, corner, strict=True)
        ]
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
            if self.blended:
                down, across = (
                    s.weights(w, self.border, p) for s, w, p in zip(self.sides, block, (ys, xs), strict=True)
                )
                to += down[:, None, None] * across[None, :, None] * inside
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
        if self.placed:
            return self.placed.features
        features = self.kept.features.pop(block, None)
        if features is None:
            self.kept.make_room()
            part = bordered(self.z, self.border, block)
            features = compute_features(self.engine, self.sheet, [(part, 0, 0)], self._moments())
        self.kept.features[block] = features  # the block that was used last comes last
        return features

    def _moments(self) -> models.Statistics | None:
        """Returns the moments of D's norms over all blocks, or None if each block has its own."""
        if not self.blended or self.view.statistics != "whole":
            return None
        if self.kept.moments is None:
            self.kept.moments = self._gathered()
        return self.kept.moments

    def _gathered(self) -> models.Statistics:
        def calls():
            for block in ((row, col) for row in self.rows for col in self.cols):
                z, inside = lay_blocks(self.sheet, [(bordered(self.z, self.border, block), 0, 0)])
                yield core(self.sheet, block) & inside, (z, inside), 1

        return gather(shared_programs(self.engine.networks).features, self.engine.params, calls())


def bordered(z: np.ndarray, border: int, block: Sequence[windows.Window] | None = None) -> np.ndarray:
    """Returns a latent [h w c] with the border that D sees, or of that a window of rows and columns."""
    rows, cols = (frames.reflected(n, -border, n + border) for n in z.shape[:2])
    if block:
        rows, cols = (lines[one.start : one.stop] for lines, one in zip((rows, cols), block, strict=True))
    return z[rows[:, None], cols]


def lay_blocks(sheet: Sequence[int], parts: Sequence[tuple[np.ndarray, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lays latents on a sheet.

    Args:
      sheet: (height, width) of the sheet in latent cells.
      parts: latents [h w c] with their borders, and the row and column where each begins.

    Returns:
      The sheet, [1 h w c], and where it holds latents, [1 h w].
    """
    z = np.zeros((1, *sheet, parts[0][0].shape[-1]), np.float32)
    for part, top, left in parts:
        z[0, top : top + part.shape[0], left : left + part.shape[1]] = part
    return z, frames.rectangles(z.shape[:3], [(0, top, left, *part.shape[:2]) for part, top, left in parts])


def compute_features(
    engine: Engine, sheet: Sequence[int], parts: Sequence[tuple[np.ndarray, int, int]], moments=None
) -> jax.Array:
    """Applies D to latents that lie on a sheet.

    Args:
      engine: networks and weights.
      sheet: as in `lay_blocks`.
      parts: likewise.
      moments: moments for D's norms (models.Statistics); None means those of the sheet.

    Returns:
      D's features of the sheet, [1 h w d].
    """
    z, inside = lay_blocks(sheet, parts)
    if moments is None:
        return engine.networks.run_features(engine.params, z, inside)
    return shared_programs(engine.networks).features(moments, None, engine.params, z, inside)[0]


def render_together(
    engine: Engine, latents: Sequence[np.ndarray], views: Sequence[View]
) -> Iterator[tuple[int, Renderer]]:
    """Renders latents of several pictures; where D has no statistic over space, small ones share its arrays.

    Args:
      engine: networks and weights.
      latents: latents [h w c].
      views: what is rendered of each.

    Yields:
      Pairs (number of the latent, its Renderer), to be used before the next pair is asked for.
    """
    border, most = engine.networks.border, BLOCK + 2 * engine.networks.border
    small = [i for i, z in enumerate(latents) if max(z.shape[:2]) <= BLOCK]
    if len(small) < 2 or models.decoder_reach(engine.config) is None:
        small = []
    for i in sorted({*range(len(latents))} - {*small}):
        yield i, Renderer(engine, latents[i], views[i])
    if not small:
        return
    parts = {i: bordered(latents[i], border) for i in small}
    sizes = [(part.shape[0], part.shape[1]) for part in parts.values()]
    many = sum(height * width for height, width in sizes) > most**2 / 2  # then all calls use one shape
    sheet = (most, most) if many else frames.best_sheet(sizes, 1, 2 * border, most)
    places = frames.pack(sizes, sheet, 1)
    for number in sorted({place.sheet for place in places}):
        here = [(i, place) for i, place in zip(small, places, strict=True) if place.sheet == number]
        features = compute_features(engine, sheet, [(parts[i], place.top, place.left) for i, place in here])
        for i, place in here:
            placed = Placed(features, place.top, place.left)
            yield i, Renderer(engine, latents[i], views[i], most, placed)


def _common(a: range, b: range) -> range:
    """Returns what two ranges have in common."""
    return range(max(a.start, b.start), max(max(a.start, b.start), min(a.stop, b.stop)))
