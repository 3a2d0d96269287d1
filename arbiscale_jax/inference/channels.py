"""Divides pictures into the colours that the networks see and what is enlarged beside them, and joins results again.

The networks see RGB. A grey picture comes back grey, since its colours are averaged, and alpha is interpolated.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from arbiscale_jax.images.alpha import bleed, resize_channel

from . import flat_colours
from .engine import Engine
from .rendering import render_together
from .tiles import View


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


def render(
    engine: Engine, pictures: Sequence[Layers], latents: Sequence[np.ndarray], views: Sequence[View]
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Renders the results of several pictures.

    Args:
      engine: networks and weights.
      pictures: the parts of the pictures.
      latents: the latents of their results, [h, w, c].
      views: what is rendered of each.

    Yields:
      Pairs (number of the picture, rows [n, width, channels] from the top down); the rows are to be used before the
      next pair is asked for.
    """
    for k, renderer in render_together(engine, latents, views):
        correction = flat_colours.find(pictures[k].colours, renderer)
        rows = flat_colours.apply(correction, (rows for _, rows in renderer.bands()), views[k])
        yield k, join(pictures[k], rows, views[k])


def join(layers: Layers, rows: Iterator[np.ndarray], view: View) -> Iterator[np.ndarray]:
    """Makes rows of a result out of those of its colours.

    Args:
      layers: the parts of the picture.
      rows: colours [n, width, 3] from the top of the view's box down, of the picture's type.
      view: what the rows show.

    Yields:
      Rows [n, width, channels].
    """
    top, left, _, width = view.box
    for some in rows:
        out = some
        if layers.grey:
            out = ((some.sum(-1, dtype=np.uint32, keepdims=True) + 1) // 3).astype(some.dtype)
            out = out if layers.channels < 3 else np.repeat(out, 3, axis=2)
        if layers.alpha is not None:
            alpha = resize_channel(layers.alpha, view.size, (top, left, len(some), width))
            out = np.concatenate([out, alpha[..., None]], axis=2)
        top += len(some)
        yield out
