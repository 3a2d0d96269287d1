"""Cuts pictures into tiles of one size, which are kept in device memory and read at random."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from arbiscale_jax.errors import UserError

from ..source import Source

_OVERLAP = 0.25  # least overlap of neighbouring tiles, as a share of their side


class PairStore(NamedTuple):
    """Holds tiles of k pairs with scale s, all of one size; it is a pytree of arrays."""

    lr: np.ndarray  # the LR pictures, uint8 [k, a, a, 3]
    hr: np.ndarray  # the larger pictures, uint8 [k, s a, s a, 3]

    @property
    def scale(self) -> int:
        """Returns s, the scale of the pairs."""
        return self.hr.shape[1] // self.lr.shape[1]


class TileStore(NamedTuple):
    """Holds t tiles and their probabilities; it is a pytree of arrays."""

    tiles: np.ndarray  # the pictures, uint8 [t, tile, tile, 3]
    sizes: np.ndarray  # height and width of the part of each tile that is not padding, int32 [t, 2]
    cumulative: np.ndarray  # cumulative sums of the tiles' probabilities, float32 [t]; the last is 1
    pairs: PairStore | None = None  # given pairs, from which some of the examples are drawn
    labels: np.ndarray | None = None  # labels of the tiles' pictures, int32 [t, 1 + n]


def make_store(
    groups: Sequence[tuple[Iterable[np.ndarray], float]],
    tile: int,
    tiles_per_image: int = 0,
    labels: Sequence[np.ndarray] = (),
) -> TileStore:
    """Cuts groups of pictures into tiles; a picture smaller than a tile is continued by its mirror image.

    Args:
      groups: pairs (pictures, share); the pictures are a Source or uint8 arrays [h w 3], and the share is that of the
        group among all draws. Within a group all tiles are equally likely.
      tile: side of a tile in pixels.
      tiles_per_image: how many tiles of a picture are kept, those with the steepest gradients; 0 is all.
      labels: the labels of the pictures of each group, int32 [pictures, 1 + n]; () makes a store without labels.

    Returns:
      The store, as numpy arrays.

    Raises:
      UserError: if no group with a positive share has a picture.
    """
    tiles, chances, told = [], [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (pictures, share) in enumerate(groups):
            # a Source is read by number, so that the threads decode it; arrays are used as they are
            readers = range(len(pictures)) if isinstance(pictures, Source) else pictures
            read = pictures.read if isinstance(pictures, Source) else np.asarray
            found = list(pool.map(lambda one, read=read: _cut(read(one), tile, tiles_per_image), readers))
            own = [pair for pairs in found for pair in pairs]
            if own and share > 0:
                tiles += own
                chances.append(np.full(len(own), share / len(own)))
                if labels:
                    told.append(np.repeat(labels[number], [len(pairs) for pairs in found], axis=0))
    if not tiles:
        raise UserError("There is no picture to make examples of; give data.root a folder with some.")
    sums = np.cumsum(np.concatenate(chances))
    sizes = np.array([size for _, size in tiles], np.int32)
    store = TileStore(np.stack([picture for picture, _ in tiles]), sizes, np.asarray(sums / sums[-1], np.float32))
    return store._replace(labels=np.concatenate(told)) if labels else store


def _cut(picture: np.ndarray | None, tile: int, most: int) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Returns the tiles of a picture, each with the size of its part that is not padding; None has no tiles."""
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
    """Yields where the fewest tiles begin that cover a length from end to end and overlap by at least _OVERLAP."""
    room = max(length - tile, 0)
    count = int(np.ceil(room / (tile * (1 - _OVERLAP)))) + 1
    return (round(i * room / max(count - 1, 1)) for i in range(count))


def _detail(tile: np.ndarray) -> float:
    """Returns the mean squared difference of neighbouring pixels in the green channel."""
    green = tile[..., 1].astype(np.float32)
    return float(np.mean(np.square(np.diff(green, axis=0))) + np.mean(np.square(np.diff(green, axis=1))))
