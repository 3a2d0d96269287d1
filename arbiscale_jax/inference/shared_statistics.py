"""Compiles networks whose norms share statistics over windows, and says which cells each window counts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np

from arbiscale_jax import models

from . import windows
from .networks import Networks


class Programs(NamedTuple):
    """Holds compiled networks, functions (given, counted, params, ...) -> (result, the gathered moments)."""

    condition: Callable
    eps: Callable
    refine: Callable
    features: Callable


@lru_cache(maxsize=32)
def shared_programs(networks: Networks) -> Programs:
    """Compiles networks whose norms take and gather moments; `given` and `counted` are those of shared_moments."""

    def share(method):
        def run(given, counted, *args):
            with models.shared_moments(given, counted) as found:
                out = method(*args)
            return out, found

        return jax.jit(run)

    return Programs(*map(share, (networks.condition, networks.eps, networks.refine, networks.features)))


def core(grid: Sequence[int], spans: Sequence[windows.Window], ratio: float = 1.0, border: int = 0) -> np.ndarray:
    """Returns where an array of a window has the cells that it alone counts; at the axis' ends all belong to it.

    Args:
      grid: (height, width) of the array.
      spans: the window of rows and that of columns.
      ratio: cells per place.
      border: cells of the array before the window's first place.

    Returns:
      [1 height width], bool.
    """
    lines = []
    for side, one in zip(grid, spans, strict=True):
        at = np.arange(side)
        low = border + round((one.first - one.start) * ratio) if one.ramp[0] else 0
        high = border + round((one.last - one.start) * ratio) if one.ramp[1] else side
        lines.append((at >= low) & (at < high))
    return (lines[0][:, None] & lines[1])[None]


def gather(
    program: Callable,
    params: Mapping,
    calls: Iterable[tuple[np.ndarray, Sequence, int]],
    known: models.Statistics | None = None,
) -> models.Statistics:
    """Applies a network to all windows and returns the moments of the whole, of norms whose moments are not known.

    Args:
      program: one of `shared_programs`.
      params: the weights.
      calls: for each batch of windows the cells that they count, as `core` returns them, [b h w], the network's further
        arguments, and how many of the windows are counted, the first of the batch.
      known: moments that norms use; the others use those of the window.
    """
    parts = []
    for counted, args, num in calls:
        found = jax.device_get(program(known, counted, params, *args)[1])
        parts += [jax.tree.map(lambda x, k=k: x[k : k + 1], found) for k in range(num)]
    return models.combine(parts)
