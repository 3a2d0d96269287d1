"""Finds the training pictures nearest to generated ones, to tell whether the model repeats what it has seen.

A distance says little by itself. The measure here is the ratio of two: that of a generated picture to its nearest
training picture, and that of this training picture to its own nearest neighbour, in another style where the names of
pictures have styles (data.name_labels). Below 1 the generated picture is nearer to a training picture than another
drawing of the same thing usually is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BLOCK = 512  # rows of the distance matrix in memory at a time


class Neighbour(NamedTuple):
    """Describes the training picture nearest to a generated one."""

    number: int  # of the generated picture
    nearest: int  # of the training picture
    distance: float  # between both, in the space of features
    other: int  # the training picture's own nearest neighbour
    own: float  # its distance

    @property
    def ratio(self) -> float:
        """Returns distance / own; it is infinite if two training pictures are equal."""
        return self.distance / self.own if self.own else np.inf


def find_neighbours(fake: np.ndarray, train: np.ndarray, styles: Sequence[str]) -> list[Neighbour]:
    """Finds the nearest training picture of each generated one, and that one's own neighbour.

    Args:
      fake: features of generated pictures, [n, d].
      train: features of training pictures, [m, d], two at least.
      styles: the style of each training picture, [m]; with a single style, any other picture counts as a neighbour.

    Returns:
      The neighbours in the order of the generated pictures.
    """
    nearest, distances = _nearest(fake, train)
    chosen = np.unique(nearest)
    kinds = np.unique(np.asarray(styles, str), return_inverse=True)[1]
    kinds = kinds if kinds.max() else np.arange(len(train))  # of one style: every picture is a kind of its own
    others, owns = _nearest(train[chosen], train, kinds[chosen], kinds)
    at = {int(j): i for i, j in enumerate(chosen)}
    return [
        Neighbour(i, int(j), float(distance), int(others[at[int(j)]]), float(owns[at[int(j)]]))
        for i, (j, distance) in enumerate(zip(nearest, distances, strict=True))
    ]


def _nearest(points: np.ndarray, others: np.ndarray, kinds=None, other_kinds=None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the number of, and the distance to, the nearest of `others` [m, d] for each point [n, d].

    With kinds, only those of another kind count.
    """
    center = others.mean(axis=0, dtype=np.float64)
    points, others = (np.asarray(x, np.float64) - center for x in (points, others))
    squares, found, distances = np.square(others).sum(axis=1), [], []
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        between = np.square(block).sum(axis=1)[:, None] + squares[None] - 2 * block @ others.T
        if kinds is not None and other_kinds is not None:
            between[kinds[start : start + _BLOCK, None] == other_kinds[None]] = np.inf
        found.append(between.argmin(axis=1))
        distances.append(np.sqrt(np.maximum(between.min(axis=1), 0)))
    return np.concatenate(found), np.concatenate(distances)
