"""Defines the Viewer, which renders window after window of one latent and applies D once."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from arbiscale_jax.images.kinds import to_picture

from . import channels, flat_colours
from .checks import check_box, check_memory, check_size
from .engine import Engine
from .rendering import Renderer
from .tiles import View, fill

KEPT_BYTES = 2**28  # bytes of D's features that a viewer keeps


class Viewer:
    """Renders windows of images of any size from one latent; `Model.viewer` makes it.

    D's features stay in memory between two calls, so that a window takes the time of f_theta alone. They depend on the
    latent and not on the size of the image, and windows have the same bytes as without a Viewer.

    Args:
      engine: networks and weights.
      z: the latent [h, w, c], on the host.
      statistics: one of models.STATISTICS.
      image: the picture of which z is a latent, as in `Model.upscale`; windows are then those of `Model.upscale`, in
        the picture's depth and with its channels. None means those of `Model.render`.
      keep: how many bytes of features are kept; those of the last block are kept in any case.
    """

    def __init__(self, engine: Engine, z: np.ndarray, statistics: str, image: Any = None, keep: int = KEPT_BYTES):
        self.engine, self.z, self.statistics = engine, z, statistics
        self.layers = None if image is None else channels.split(to_picture(image).pixels)
        self.dtype = "uint8" if self.layers is None else self.layers.colours.dtype.name
        self.channels = 3 if self.layers is None else self.layers.channels
        self._renderer = Renderer(engine, z, View((1, 1), (0, 0, 1, 1), self.dtype, statistics), keep=keep)

    @property
    def nbytes(self) -> int:
        """Returns the bytes of D's features that are kept at the moment."""
        return self._renderer.kept.size()

    def render(self, size: Sequence[int], box: Sequence[int] | None = None) -> np.ndarray:
        """Renders a window.

        Args:
          size: (height, width) of the whole image.
          box: (top, left, height, width) of the window to render; by default the whole image.

        Returns:
          An array [height, width, channels], uint8 or uint16.

        Raises:
          UserError: if the size or the box is impossible, or the result does not fit in memory.
        """
        size = check_size(size)
        shape = (*check_box(box, size)[2:], self.channels)
        check_memory(shape, self.dtype)
        out = np.empty(shape, self.dtype)
        fill(out, self.rows(size, box))
        return out

    def rows(self, size: Sequence[int], box: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """Yields what `render` returns a part at a time, as rows [n, width, channels] from the top down."""
        size = check_size(size)
        view = View(size, check_box(box, size), self.dtype, self.statistics)
        rows = (some for _, some in self._renderer.viewing(view).bands())
        if self.layers is None:
            yield from rows
            return
        yield from channels.join(self.layers, flat_colours.apply(self._correction, rows, view), view)

    @cached_property
    def _correction(self) -> flat_colours.Correction | None:
        """Returns what evenly coloured areas of the picture lack, which holds for every size."""
        assert self.layers is not None
        return flat_colours.find(self.layers.colours, self._renderer)
