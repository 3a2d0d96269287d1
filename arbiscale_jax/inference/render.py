"""Renders windows of an image of any size, which need not exist as a whole, in tiles that need little memory."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import models
from arbiscale_jax.errors import UserError

TILES = {"cpu": 64, "gpu": 256}  # side of a tile in pixels; the activations of one tile are in memory at a time
MAX_SIDE = 2**40  # up to this side, int64 arithmetic on positions is exact


def check_size(size) -> tuple[int, int]:
    """Returns (height, width) as ints, and raises UserError unless both are whole numbers from 1 to 2^40."""
    try:
        height, width = (int(side) for side in size)
        whole = (height, width) == tuple(size)
    except (TypeError, ValueError, OverflowError):
        height, width, whole = 0, 0, False
    if not whole or not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UserError(f"size is (height, width), whole numbers of pixels from 1 to 2^40, got {size!r}.")
    return height, width


def check_box(box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width), which is the whole image for None.

    Raises:
      UserError: if the box is not of whole numbers, or does not lie inside `size`.
    """
    if box is None:
        return (0, 0, *size)
    try:
        top, left, height, width = (int(x) for x in box)
        whole = (top, left, height, width) == tuple(box)
    except (TypeError, ValueError, OverflowError):
        top, left, height, width, whole = 0, 0, 0, 0, False
    if not whole:
        raise UserError(f"box is (top, left, height, width) in whole pixels, got {box!r}.")
    if top < 0 or left < 0 or height < 1 or width < 1 or top + height > size[0] or left + width > size[1]:
        raise UserError(
            f"The box {tuple(box)} (top, left, height, width) does not lie inside the image of {size[0]} x {size[1]}."
        )
    return top, left, height, width


class Lines(NamedTuple):
    """Describes the rows or columns of a tile: where they are rendered, and how the output's are made from them."""

    axis: models.Axis  # the places of the rendered lines
    weights: np.ndarray | None = None  # [tile, rendered]; None means that the rendered lines are the output's


def reduce_lines(x, rows: Lines, cols: Lines):
    """Reduces rendered lines [b p q 3] to the lines of the output, [b tile tile 3]."""
    if rows.weights is not None:
        x = jnp.einsum("ip,bpqc->biqc", rows.weights, x, precision="highest")
    if cols.weights is not None:
        x = jnp.einsum("jq,bpqc->bpjc", cols.weights, x, precision="highest")
    return x


class View(NamedTuple):
    """Describes which part of an image is rendered, and from which part of its latent."""

    size: tuple[int, int]  # (H, W) of the whole image
    box: tuple[int, int, int, int]  # (top, left, height, width) of the window to render
    place: tuple[int, int, int, int] | None = None  # (h, w, top, left) if features are a window of the h x w cells
    finer: tuple[int, int] = (1, 1)  # how many times finer rows and columns are rendered before they are reduced


def render_tiles(
    grid: Callable, features: jax.Array, view: View, out: np.ndarray, finish: Callable, tile: int | None = None
) -> None:
    """Renders a window into `out`, tile by tile.

    Tiles lie on a lattice that is fixed to the whole image, and all have one shape. So a pixel is computed in the same
    way whichever window contains it, and a window has the same bytes as that part of the whole image.

    Args:
      grid: the compiled function (features [b h w d], rows, cols) -> [b tile tile 3]; rows and cols are `Lines`.
      features: [b h w d], of the whole latent or of the window of cells that view.place names.
      view: what is rendered.
      out: the array to write, [b, height, width, 3].
      finish: float32 array -> values of out's type.
      tile: the side of a tile in pixels; by default it depends on the device.
    """
    size, box, place, finer = view
    tile = tile or TILES.get(jax.default_backend(), 256)
    tile = tile if max(finer) == 1 else max(16, 2 * tile // max(finer))
    top, left, height, width = box
    h, w, first_row, first_column = place or (*features.shape[1:3], 0, 0)

    def locate(latent, size, start, first, cells, times):
        if times == 1:
            found, weights = models.axis(latent, size, start, tile), None
        else:
            found = models.axis(latent, *models.fine_span(start, tile, size, times))
            weights = models.reduction(start, tile, size, times)
        found = found._replace(index=np.clip(found.index - first, 0, cells - 1)) if place else found
        return Lines(found, weights)

    for y in range(top // tile * tile, top + height, tile):
        rows = locate(h, size[0], y, first_row, features.shape[1], finer[0])
        low_y, high_y = max(y, top), min(y + tile, top + height)
        for x in range(left // tile * tile, left + width, tile):
            columns = locate(w, size[1], x, first_column, features.shape[2], finer[1])
            pixels = np.asarray(grid(features, rows, columns))
            low_x, high_x = max(x, left), min(x + tile, left + width)
            inside = pixels[:, low_y - y : high_y - y, low_x - x : high_x - x]
            out[:, low_y - top : high_y - top, low_x - left : high_x - left] = finish(inside)


def to_integers(x: np.ndarray, dtype: type | np.dtype = np.uint8) -> np.ndarray:
    """Maps [-1, 1] to 0 .. the largest value of the integer type, clipped and rounded."""
    top = np.iinfo(dtype).max
    return np.clip(np.round((x + 1) * (top / 2)), 0, top).astype(dtype)


def to_floats(image: np.ndarray) -> jnp.ndarray:
    """Maps uint8 or uint16 pixels to float32 in [-1, 1]."""
    return jnp.asarray(image.astype(np.float32) * np.float32(2 / np.iinfo(image.dtype).max) - 1)
