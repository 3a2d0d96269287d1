"""Divides pictures into the colours that the networks see and what is enlarged beside them, and joins results again.

The networks see RGB. A grey picture comes back grey, since its colours are averaged, and alpha is interpolated.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from arbiscale_jax.images.alpha import bleed, resize_channel


class Layers(NamedTuple):
    """Holds the parts of a picture."""

    colours: np.ndarray  # uint8 or uint16 [h, w, 3]; under clear pixels those of the nearest pixel that shows
    alpha: np.ndarray | None  # of the same type, [h, w]
    grey: bool  # whether red, green and blue are equal everywhere
    channels: int  # of the picture and of its results, 1 to 4


def split(pixels: np.ndarray) -> Layers:
    """Divides a picture, uint8 or uint16 [h, w, c] with c as in images.Picture."""
    channels = pixels.shape[2]
    colours, alpha = pixels, None
    if channels in (2, 4):
        colours, alpha = pixels[..., :-1], pixels[..., -1]
        colours = bleed(colours, alpha)
    grey = channels < 3 or bool((colours == colours[..., :1]).all())
    if channels < 3:
        colours = np.repeat(colours, 3, axis=2)
    return Layers(colours, alpha, grey, channels)


def join(
    layers: Layers, rows: Iterator[np.ndarray], size: tuple[int, int], box: tuple[int, int, int, int]
) -> Iterator[np.ndarray]:
    """Makes rows of a result out of those of its colours.

    Args:
      layers: the parts of the picture.
      rows: colours [n, width, 3] from the top of the box down, of the picture's type.
      size: (height, width) of the whole result.
      box: (top, left, height, width) of the window of the result that the rows show.

    Yields:
      Rows [n, width, channels].
    """
    top, left, _, width = box
    for some in rows:
        out = some
        if layers.grey:
            out = ((some.sum(-1, dtype=np.uint32, keepdims=True) + 1) // 3).astype(some.dtype)
            out = out if layers.channels < 3 else np.repeat(out, 3, axis=2)
        if layers.alpha is not None:
            alpha = resize_channel(layers.alpha, size, (top, left, len(some), width))
            out = np.concatenate([out, alpha[..., None]], axis=2)
        top += len(some)
        yield out
