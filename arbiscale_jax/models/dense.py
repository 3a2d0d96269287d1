"""Renders far beyond the scale of training at the cost of fewer pixels.

Where many output pixels lie in one latent cell, f_theta is computed at some of their places and interpolated between
them by the cubic convolution of Keys 1981 (a = -0.5). f_theta is continuous and consists of pieces that are nearly
linear, so the error falls with the number of places per cell (docs/RESULTS.md).
"""

import numpy as np

from .reduce import cubic

MARGIN = 2  # radius of the cubic kernel, in places


def dense_size(most: float, cells: int, size: int) -> int:
    """Returns the number of places along an axis at which an output of `size` pixels is computed.

    Args:
      most: number of pixels per latent cell above which there are fewer places than pixels; 0 is no limit.
      cells: number of latent cells.
      size: number of pixels of the whole output.

    Returns:
      A whole number of places per cell times `cells`, or `size` if every pixel is computed.
    """
    places = int(np.ceil(most)) * cells
    return places if 0 < places < size else size


def dense_span(start: int, length: int, size: int, places: int) -> tuple[int, int]:
    """Returns (first, count) of the places from which `length` output pixels from `start` on are interpolated.

    The count depends on length, size and places alone, so that tiles of one length share a program.
    """
    first = ((2 * start + 1) * places - size) // (2 * size) - MARGIN + 1
    return first, int(np.ceil(length * places / size)) + 2 * MARGIN


def interpolation(start: int, length: int, size: int, places: int) -> np.ndarray:
    """Computes the weights of the places of `dense_span` in each output pixel; they sum to 1.

    Args:
      start: first output pixel of a window.
      length: number of output pixels in the window.
      size: number of pixels of the whole output.
      places: number of places of the whole output.

    Returns:
      float32 [length, count].
    """
    first, count = dense_span(start, length, size, places)
    at = (2 * (start + np.arange(length, dtype=np.int64)) + 1) * places - size  # twice size times the place
    place = at // (2 * size) - first + (at % (2 * size)) / (2 * size)
    return cubic(np.arange(count) - place[:, None]).astype(np.float32)
