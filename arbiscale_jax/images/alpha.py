"""Prepares colours for enlarging beside alpha, enlarges alpha, and shows transparent pictures on white."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

BAND_ROWS = 256  # of a result, which are computed at once


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Shows pixels on white.

    Args:
      pixels: uint8 or uint16 [h, w, c].

    Returns:
      Pixels of the same dtype without alpha, [h, w, 1] for grey and [h, w, 3] for RGB.
    """
    if pixels.shape[2] in (1, 3):
        return pixels
    peak = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.uint64)
    shown = pixels[..., :-1] * alpha + peak * (peak - alpha)
    return ((shown + peak // 2) // peak).astype(pixels.dtype)


def bleed(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Fills the colours under clear pixels with those of the nearest pixel that shows.

    What is enlarged afterwards mixes colours of neighbours, and those under clear pixels mean nothing.

    Args:
      colours: [h, w, c], without alpha.
      alpha: [h, w].

    Returns:
      Colours [h, w, c]; those that show, or of a picture of which nothing shows, are unchanged.
    """
    clear = alpha == 0
    if not clear.any() or clear.all():
        return colours
    from scipy import ndimage  # here, since it takes long to import

    nearest = np.empty((2, *clear.shape), np.int32)  # y and x
    ndimage.distance_transform_edt(clear, return_distances=False, return_indices=True, indices=nearest)
    return colours[nearest[0], nearest[1]]


def resize_channel(
    channel: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Resizes a channel, as `resize_channel_rows` does, and returns the whole result."""
    return np.concatenate(list(resize_channel_rows(channel, size, box)))


def resize_channel_rows(
    channel: np.ndarray,
    size: tuple[int, int],
    box: tuple[int, int, int, int] | None = None,
    band_rows: int = BAND_ROWS,
) -> Iterator[np.ndarray]:
    """Resizes a channel by bicubic interpolation (a = -0.5), with a wider kernel where it becomes smaller.

    Pixels lie at the centres of their cells, and edges are continued by their outermost pixels. Every result depends
    on its place alone, so that bands and windows equal parts of the whole.

    Args:
      channel: uint8 or uint16 [h, w].
      size: (height, width) of the whole result.
      box: (top, left, height, width) of the window of the result that is computed; all of it by default.
      band_rows: the number of rows that are computed at once.

    Yields:
      Rows of the result from the top down, of the channel's dtype, [n, width of the box].
    """
    top, left, height, width = box or (0, 0, *size)
    peak = np.iinfo(channel.dtype).max
    columns, across = _taps(channel.shape[1], size[1], left, width)
    for start in range(top, top + height, band_rows):
        n = min(band_rows, top + height - start)
        rows, down = _taps(channel.shape[0], size[0], start, n)
        first = rows.min()
        held = channel[first : rows.max() + 1].astype(np.float64)
        wide = np.zeros((len(held), width))
        for k in range(columns.shape[1]):
            wide += held[:, columns[:, k]] * across[:, k]
        out = np.zeros((n, width))
        for k in range(rows.shape[1]):
            out += wide[rows[:, k] - first] * down[:, k, None]
        yield np.rint(np.clip(out, 0, peak)).astype(channel.dtype)


@lru_cache(maxsize=8)
def _taps(old: int, new: int, start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels that n results from `start` on are made of and their weights, both [n, taps]."""
    scale = max(1.0, old / new)
    reach = int(np.ceil(2 * scale))
    centres = (np.arange(start, start + n) + 0.5) * (old / new) - 0.5
    taps = np.floor(centres).astype(int)[:, None] + np.arange(1 - reach, reach + 1)
    x = np.abs(centres[:, None] - taps) / scale
    weights = np.where(x <= 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))
    weights /= weights.sum(1, keepdims=True)
    return np.clip(taps, 0, old - 1), weights
