"""Measures the weave of upscaled pictures: stripes, checkerboards and fabric that a method adds everywhere.

The measure is this project's own. Detail differs from place to place in a picture, so over many places its power at one
distance from the origin of the spectrum evens out. A pattern that a network (or the grid of an interpolation) adds
everywhere at one frequency stays as a peak. The weave is the factor by which the peak exceeds the rest: 1.5 to 2 for
photographs, 7 to 15 for bicubic enlargements.
"""

from collections.abc import Hashable

import numpy as np

TILE = 32  # side of a tile in pixels
LEAST_TILES = 3  # least number of tiles of a picture that count, if it has as many
FLOOR = 1e-3  # added to the power, for pictures in 0..255

_y, _x = np.mgrid[:TILE, :TILE]
_radius = np.hypot(_y - TILE // 2, _x - TILE // 2)
RINGS = tuple((_radius >= r - 0.5) & (_radius < r + 0.5) for r in range(4, 16))  # cycles per tile, bool [32 32] each
_PLANE = np.stack([_y.ravel(), _x.ravel(), np.ones(TILE * TILE)], axis=1)  # 1024 3
_TO_PLANE = np.linalg.pinv(_PLANE)  # 3 1024
_HANN = np.outer(np.hanning(TILE), np.hanning(TILE))


def ring_spectrum(output: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, int]:
    """Sums the log power spectra of the output's tiles, over the tiles where the truth varies least.

    Tiles of 32 x 32 pixels lie side by side from the top left. The half of them in which the grey truth varies least
    counts, and at least 3. Each tile is made grey, the plane that fits it best is subtracted, and it is multiplied by a
    Hann window. From each ring of equal frequency, 4 to 15 cycles per tile, the ring's median is subtracted. Sums and
    numbers of tiles of several pictures can be added.

    Args:
      output: RGB in 0..255 [h, w, 3], at least 32 pixels per side.
      truth: RGB in 0..255 of the same size.

    Returns:
      The sum, float64 [32, 32], with frequency 0 in the middle and the value 0 outside the rings.
      The number of tiles n.
    """
    assert output.shape == truth.shape and min(truth.shape[:2]) >= TILE, (output.shape, truth.shape)
    deviation = _tiles(truth).std(axis=(1, 2))
    even = np.argsort(deviation, kind="stable")[: max(LEAST_TILES, len(deviation) // 2)]
    tiles = _tiles(output)[even].reshape(len(even), -1)  # n 1024
    tiles = (tiles - tiles @ _TO_PLANE.T @ _PLANE.T).reshape(-1, TILE, TILE)
    power = np.abs(np.fft.fftshift(np.fft.fft2(tiles * _HANN), axes=(1, 2))) ** 2
    log_power, total = np.log(power + FLOOR), np.zeros((TILE, TILE))
    for ring in RINGS:
        on_ring = log_power[:, ring]  # n k
        total[ring] = np.sum(on_ring - np.median(on_ring, axis=1, keepdims=True), axis=0)
    return total, len(even)


def _tiles(image: np.ndarray) -> np.ndarray:
    """Cuts the grey picture into tiles, row by row: [h, w, 3] -> float64 [n, 32, 32]."""
    rows, cols = (side // TILE for side in image.shape[:2])
    grey = image[: rows * TILE, : cols * TILE].mean(axis=2, dtype=np.float64)
    return grey.reshape(rows, TILE, cols, TILE).swapaxes(1, 2).reshape(-1, TILE, TILE)


def weave(total: np.ndarray, n: int) -> float:
    """Computes the weave from the sum [32, 32] over n tiles: the largest ratio of maximum to median power in a ring."""
    return max(float(np.exp((total[ring].max() - np.median(total[ring])) / n)) for ring in RINGS)


class Spectra:
    """Adds up `ring_spectrum` over pictures, under keys such as a method's name and a scale."""

    def __init__(self):
        self._sums = {}  # {key: (sum [32, 32], number of tiles)}

    def add(self, key: Hashable, output: np.ndarray, truth: np.ndarray) -> None:
        """Adds a picture; output and truth are as in `ring_spectrum`."""
        total, n = self._sums.get(key, (0.0, 0))
        more, tiles = ring_spectrum(output, truth)
        self._sums[key] = (total + more, n + tiles)

    def weaves(self) -> dict[Hashable, float]:
        """Returns, for each key, the weave of its pictures together."""
        return {key: weave(*found) for key, found in self._sums.items()}
