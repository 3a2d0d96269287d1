"""Anti-aliasing of a render whose pixels are coarser than what f_theta answers for: render finer, then reduce.

A pixel of the output is the antialiased cubic reduction (Keys 1981, a = -0.5, as Pillow's) of `finer` x `finer`
rendered ones and of their neighbours within MARGIN output pixels.
"""

import numpy as np

MARGIN = 2  # output pixels that the cubic kernel reaches
MOST = 16  # times finer: a thumbnail needs no more


def _cubic(x):
    """Keys' kernel, a = -0.5."""
    x = np.abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0))


def fine_span(start: int, length: int, size: int, finer: int) -> tuple[int, int, int]:
    """Returns (size, start, length) of the finer pixels that `length` output pixels from `start` on need."""
    return size * finer, (start - MARGIN) * finer, (length + 2 * MARGIN) * finer


def reduction(start: int, length: int, size: int, finer: int) -> np.ndarray:
    """Computes the weights of the finer pixels of `fine_span` in each output pixel, float32 [length, finer length].

    Finer pixels beyond the picture weigh nothing, and the rest sums to one, as in Pillow. Output pixels beyond the
    picture (of a tile that sticks out) take the nearest weights that there are.
    """
    whole, first, num = fine_span(start, length, size, finer)
    fine = first + np.arange(num, dtype=np.int64)
    centres = np.clip(start + np.arange(length, dtype=np.int64), 0, size - 1) * finer + (finer - 1) / 2
    weights = _cubic((fine - centres[:, None]) / finer) * ((fine >= 0) & (fine < whole))
    total = weights.sum(1, keepdims=True)
    return (weights / np.where(total == 0, 1.0, total)).astype(np.float32)


def finer_factor(least: float, cells: int, size: int) -> int:
    """Returns how many times finer `size` pixels over `cells` latent cells are rendered, at least `least` a cell."""
    return max(1, min(MOST, int(np.ceil(least * cells / size - 1e-9))))
