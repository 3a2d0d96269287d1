"""Avoids aliasing in a render whose pixels are coarser than those that f_theta has learned.

It is rendered finer and then reduced. A pixel of the output is the antialiased cubic reduction (Keys 1981, a = -0.5,
as in Pillow) of `finer` x `finer` rendered pixels and their neighbours within MARGIN output pixels.
"""

import numpy as np

MARGIN = 2  # radius of the cubic kernel, in output pixels
MOST = 16  # largest factor by which a render is finer; a thumbnail does not need more


def cubic(x):
    """Returns the values at x of the kernel of Keys with a = -0.5, which is 0 from 2 on."""
    x = np.abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0))


def fine_span(start: int, length: int, size: int, finer: int) -> tuple[int, int, int]:
    """Returns (size, start, length) of the finer pixels that `length` output pixels from `start` on are made of."""
    return size * finer, (start - MARGIN) * finer, (length + 2 * MARGIN) * finer


def reduction(start: int, length: int, size: int, finer: int) -> np.ndarray:
    """Computes the weights of the finer pixels of `fine_span` in each output pixel.

    Finer pixels beyond the picture have weight 0, and the other weights sum to 1, as in Pillow. Output pixels beyond
    the picture, as in a tile that extends over its border, get the weights of the nearest pixel in the picture.

    Args:
      start: first output pixel of a window.
      length: number of output pixels in the window.
      size: number of pixels of the whole output.
      finer: how many times finer the render is.

    Returns:
      float32 [length, finer (length + 2 MARGIN)].
    """
    whole, first, num = fine_span(start, length, size, finer)
    fine = first + np.arange(num, dtype=np.int64)
    centres = np.clip(start + np.arange(length, dtype=np.int64), 0, size - 1) * finer + (finer - 1) / 2
    weights = cubic((fine - centres[:, None]) / finer) * ((fine >= 0) & (fine < whole))
    total = weights.sum(1, keepdims=True)
    return (weights / np.where(total == 0, 1.0, total)).astype(np.float32)


def finer_factor(least: float, cells: int, size: int) -> int:
    """Returns how many times finer to render `size` pixels over `cells` cells, to have `least` pixels per cell."""
    return max(1, min(MOST, int(np.ceil(least * cells / size - 1e-9))))
