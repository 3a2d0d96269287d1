"""Cuts an axis of a picture into windows that overlap, so that the memory in use does not depend on its length.

If no network computes a statistic over space, a window is used only where the networks see all that they would see in
one pass, and it equals that part of one pass. Otherwise attention sees one window at a time, and norms do, or share
moments that come near those of one pass; blending hides the difference (as in tiled diffusion: Jimenez 2023, "Mixture
of Diffusers").
"""

import math
from typing import NamedTuple

import numpy as np

DEAD, RAMP = 16, 32  # where windows are blended: over RAMP places, and not used within DEAD of their own edges


class Overlap(NamedTuple):
    """Says how windows overlap, in places."""

    dead: int  # width of the part along a window's own edges that is not used
    ramp: int = 0  # width over which neighbours are blended
    multiple: int = 1  # windows begin and end at multiples of this length


class Window(NamedTuple):
    """Describes one window along an axis, in places."""

    start: int  # first place that the networks see
    stop: int  # end of these places
    first: int  # where the window begins to be used: half of its neighbour's share is before this place
    last: int  # likewise where its use ends
    ramp: tuple[int, int]  # width of the blending at both ends; 0 where the axis ends

    @property
    def length(self) -> int:
        """Returns the number of places that the networks see."""
        return self.stop - self.start

    def weights(self, places: np.ndarray) -> np.ndarray:
        """Returns the window's share at places, which are real numbers; the shares of all windows sum to 1."""
        shares = np.ones(len(places))
        for edge, ramp, sign in ((self.first, self.ramp[0], 1), (self.last, self.ramp[1], -1)):
            distance = sign * (places - edge)
            shares *= np.clip(distance / ramp + 0.5, 0, 1) if ramp else distance >= 0
        return shares.astype(np.float32)

    @property
    def used(self) -> tuple[float, float]:
        """Returns where the window's share begins and ends to be above 0."""
        return self.first - self.ramp[0] / 2, self.last + self.ramp[1] / 2


def cut(length: int, most: int, overlap: Overlap) -> list[Window]:
    """Divides an axis evenly into the fewest windows of at most `most` places.

    Args:
      length: number of places, a multiple of overlap.multiple.
      most: largest number of places that the networks may see at a time; it is raised where it leaves less than half
        of a window to be used.
      overlap: how windows overlap.

    Returns:
      The windows in order; their parts from `first` to `last` are the axis.
    """
    dead, ramp, multiple = overlap
    margin = -(-(dead + (ramp + 1) // 2) // multiple) * multiple
    most = max(most, 4 * margin)
    count = 1 if length <= most else math.ceil(length / max(multiple, (most - 2 * margin) // multiple * multiple))
    edges = [round(i * length / (count * multiple)) * multiple for i in range(count)] + [length]
    return [
        Window(
            max(0, edges[i] - margin),
            min(length, edges[i + 1] + margin),
            edges[i],
            edges[i + 1],
            (ramp if i else 0, ramp if i < count - 1 else 0),
        )
        for i in range(count)
    ]
