"""Pictures cut into tiles of one size, to be held in device memory and read at random."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from arbiscale_jax.errors import UserError

from ..sources import Source

_OVERLAP = 0.25  # of neighbouring tiles, at least, of their side


class PairStore(NamedTuple):
    """Tiles of pairs, all of one size; a pytree of arrays."""

    lr: np.ndarray  # uint8 [k, a, a, 3]
    hr: np.ndarray  # uint8 [k, s a, s a, 3]

    @property
    def scale(self) -> int:
        """Returns s, the pairs' scale."""
        return self.hr.shape[1] // self.lr.shape[1]


class TileStore(NamedTuple):
    """Tiles and the chance of each; a pytree of arrays."""

    tiles: np.ndarray  # uint8 [t, tile, tile, 3]
    sizes: np.ndarray  # int32 [t, 2], height and width of the part that is no padding
    cumulative: np.ndarray  # float32 [t], sums of the tiles' chances; the last is 1
    pairs: PairStore | None = None  # from which some of the examples are drawn


def make_store(groups: Sequence[tuple[Iterable[np.ndarray], float]], tile: int, tiles_per_image: int = 0) -> TileStore:
    """Cuts groups of pictures into tiles.

    Args: groups, pairs of pictures (a Source, or uint8 arrays [h w 3]) and the group's share of the draws, within which
      all tiles are alike; tile, side in pixels; tiles_per_image, how many of a picture's tiles are kept, those with the
      steepest gradients; 0: all.
    Returns: the store, as numpy arrays. A picture smaller than a tile is continued by its mirror image.
    Raises: UserError if no group with a positive share has a picture.
    """
    tiles, chances = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pictures, share in groups:
            # a Source is read by number, so that the threads decode; what else there is comes as it is
            readers = range(len(pictures)) if isinstance(pictures, Source) else pictures
            read = pictures.read if isinstance(pictures, Source) else np.asarray
            found = list(pool.map(lambda one, read=read: _cut(read(one), tile, tiles_per_image), readers))
            own = [pair for pairs in found for pair in pairs]
            if own and share > 0:
                tiles += own
                chances.append(np.full(len(own), share / len(own)))
    if not tiles:
        raise UserError("There is no picture to make examples of; give data.root a folder with some.")
    sums = np.cumsum(np.concatenate(chances))
    sizes = np.array([size for _, size in tiles], np.int32)
    return TileStore(np.stack([picture for picture, _ in tiles]), sizes, np.float32(sums / sums[-1]))


def _cut(picture: np.ndarray | None, tile: int, most: int) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Returns a picture's tiles with the size of their true part; none where the picture could not be read."""
    if picture is None:
        return []
    h, w = picture.shape[:2]
    size = min(h, tile), min(w, tile)
    padded = np.pad(picture, ((0, tile - size[0]), (0, tile - size[1]), (0, 0)), mode="symmetric")
    found = [padded[i : i + tile, j : j + tile] for i in starts(h, tile) for j in starts(w, tile)]
    if most and len(found) > most:
        order = np.argsort([-_detail(one) for one in found], kind="stable")[:most]
        found = [found[i] for i in sorted(order)]
    return [(np.ascontiguousarray(one), size) for one in found]


def starts(length: int, tile: int) -> Iterator[int]:
    """Places the fewest tiles over a length so that neighbours share _OVERLAP and both ends are reached."""
    room = max(length - tile, 0)
    count = int(np.ceil(room / (tile * (1 - _OVERLAP)))) + 1
    return (round(i * room / max(count - 1, 1)) for i in range(count))


def _detail(tile: np.ndarray) -> float:
    """Mean squared difference of neighbouring pixels of the green channel."""
    green = tile[..., 1].astype(np.float32)
    return float(np.mean(np.square(np.diff(green, axis=0))) + np.mean(np.square(np.diff(green, axis=1))))
