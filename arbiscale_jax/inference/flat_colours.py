"""Gives evenly coloured areas of an upscaled picture the colours that they have in the input.

Networks with norms over space shift the colours of pictures that hardly vary, by up to 14 of 255 levels where the whole
picture is of one saturated colour. What the render lacks of the input is fitted there by a gain and an offset for each
channel, after the guided filter (He, Sun and Tang 2013), with the render as the guide; areas that are not even do not
count.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .rendering import Renderer
from .sheets import to_floats
from .tiles import View, fill, to_integers

EVEN = 3 / 127.5  # standard deviation in a neighbourhood at which an area counts by 1 / e; the range is [-1, 1]
NEAR, WIDE = 2, 8  # radii of the neighbourhoods in which evenness is judged and colours are fitted, in input pixels
FLOOR = 0.1  # variance of the guide from which on a gain is trusted, so that offsets alone count in even areas
LEAST_SHARE = 0.01  # share of a neighbourhood that is even, at which the fit counts by a half
FINER = 2  # how many times finer than the input a result is rendered to find out its colours
ROWS = 64  # of the input that are compared at a time
ROUNDS = 3  # of fitting, since what is clipped afterwards shifts colours again
SMALL_SHIFT = 1.5 / 127.5  # shifts of this size are corrected by a half, smaller ones hardly, since they may be chance


class Correction(NamedTuple):
    """Holds what is added to a picture x in [-1, 1], gain * x + offset, at the places of the input's pixels."""

    gain: np.ndarray  # [h, w, 3]
    offset: np.ndarray  # [h, w, 3]


def evenness(x: np.ndarray) -> np.ndarray:
    """Returns how evenly coloured each place of a picture [h, w, 3] in [-1, 1] is, from 0 to 1, [h, w]."""
    variance = np.maximum(_mean(x * x, NEAR) - _mean(x, NEAR) ** 2, 0).max(-1)
    return np.exp(-variance / EVEN**2)


def fit(x: np.ndarray, rendered: np.ndarray, even: np.ndarray) -> Correction | None:
    """Fits what a render lacks of the input in even areas.

    Args:
      x: the input, [h, w, 3] in [-1, 1].
      rendered: the result, [FINER h, FINER w, 3], not clipped.
      even: evenness, [h, w].

    Returns:
      The correction, or None if it would change nothing.
    """
    weight, guide = even[..., None], _reduced(rendered)
    number = _mean(weight, WIDE)
    total, trust = np.maximum(number, 1e-6), number / (number + LEAST_SHARE)
    centre = _mean(weight * guide, WIDE) / total
    variance = np.maximum(_mean(weight * guide**2, WIDE) / total - centre**2, 0)
    found = Correction(np.zeros_like(x), np.zeros_like(x))
    for _ in range(ROUNDS):
        lacking = _lacking(x, rendered, found)
        target = _mean(weight * lacking, WIDE) / total
        covariance = _mean(weight * guide * lacking, WIDE) / total - centre * target
        gain = trust * covariance / (variance + FLOOR)
        offset = trust * target - gain * centre
        found = Correction(found.gain + _mean(gain, WIDE), found.offset + _mean(offset, WIDE))
    square = ((found.gain * guide + found.offset) ** 2).max(-1, keepdims=True)
    if square.max() < SMALL_SHIFT**2:
        return None
    share = _mean(square / (square + SMALL_SHIFT**2), NEAR)
    return Correction(share * found.gain, share * found.offset)


def find(image: np.ndarray, renderer: Renderer) -> Correction | None:
    """Finds the correction of a result, which holds for every size.

    Args:
      image: the input, uint8 or uint16 [h, w, 3].
      renderer: renders the result's latent; D's features that it keeps serve the result too.

    Returns:
      The correction, or None where there is nothing to correct.
    """
    x = to_floats(image)
    even, size = evenness(x), (FINER * x.shape[0], FINER * x.shape[1])
    if even.mean() <= LEAST_SHARE:
        return None
    view, rendered = View(size, (0, 0, *size), "float32", renderer.view.statistics), np.empty((*size, 3), np.float32)
    fill(rendered, (rows for _, rows in renderer.viewing(view).bands()))
    return fit(x, rendered, even)


def apply(correction: Correction | None, rows: Iterator[np.ndarray], view: View) -> Iterator[np.ndarray]:
    """Corrects rows of a result; uint8 or uint16 [n, w, 3] from the top of the view's box down."""
    if correction is None:
        yield from rows
        return
    (top, left, _, width), (height, whole) = view.box, view.size
    columns = _between(correction.gain.shape[1], whole, left, width)
    for some in rows:
        lines = _between(correction.gain.shape[0], height, top, len(some))
        gain, offset = (_interpolate(field, lines, columns) for field in correction)
        x = to_floats(some)
        yield to_integers(x + gain * x + offset, some.dtype)
        top += len(some)


def _lacking(x: np.ndarray, rendered: np.ndarray, found: Correction) -> np.ndarray:
    """Returns what a corrected render lacks of the input, [h, w, 3]; a few rows at a time, since renders are large."""
    out = np.empty_like(x)
    for top in range(0, len(x), ROWS):
        rows, finer = slice(top, top + ROWS), slice(FINER * top, FINER * (top + ROWS))
        gain, offset = (field[rows].repeat(FINER, 0).repeat(FINER, 1) for field in found)
        out[rows] = x[rows] - _reduced(np.clip(rendered[finer] + gain * rendered[finer] + offset, -1, 1))
    return out


def _reduced(x: np.ndarray) -> np.ndarray:
    """Returns means over squares of FINER^2 pixels of [FINER h, FINER w, 3]."""
    height, width, _ = x.shape
    return x.reshape(height // FINER, FINER, width // FINER, FINER, 3).mean((1, 3))


def _mean(x: np.ndarray, radius: int) -> np.ndarray:
    """Returns means over squares of (2 radius + 1)^2 places of [h, w, c]; edges are reflected."""
    side = 2 * radius + 1
    return ndimage.uniform_filter1d(ndimage.uniform_filter1d(x, side, 0), side, 1)


def _between(old: int, new: int, start: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the two places around each line of an output, and the share of the second."""
    at = np.clip((np.arange(start, start + number) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.minimum(at.astype(int), max(old - 2, 0))
    return first, np.minimum(first + 1, old - 1), (at - first).astype(np.float32)


def _interpolate(field: np.ndarray, lines, columns) -> np.ndarray:
    """Returns a field [h, w, 3] at lines and columns of `_between`, interpolated linearly."""
    (up, down, y), (left, right, x) = lines, columns
    found = field[up] + y[:, None, None] * (field[down] - field[up])
    return found[:, left] + x[None, :, None] * (found[:, right] - found[:, left])
