"""Lays the windows of pictures on sheets, arrays of a few shapes, and takes what is computed there from them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from arbiscale_jax.diffusion import Advance

from . import frames
from .engine import Engine
from .options import Sampling
from .plan import Part, Plan

Progress = Callable[[int, int], object]


class Job(NamedTuple):
    """Says what is sampled, and how."""

    images: Sequence[np.ndarray]  # pictures uint8 or uint16 [h, w, 3]
    numbers: Sequence[int]  # numbers of the answers for each picture
    options: Sampling
    seed: int
    progress: Progress | None = None


class Inputs(NamedTuple):
    """Holds the arrays of one batch of sheets."""

    lr: np.ndarray  # [b H W 3] in [-1, 1], zero outside the pictures
    cells: np.ndarray  # names of the latent cells, int32 [b h w 3]; the number of the answer is 0
    frame: frames.Frame | None  # None if every sheet is filled
    seen: frames.Seen | None  # for back-projection in frames


def counting(progress: Progress | None, total: int) -> Advance:
    """Returns a function that counts parts of the work, and calls progress(done, total) where there is one."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    return advance


def to_floats(image: np.ndarray) -> np.ndarray:
    """Maps uint8 or uint16 pixels to float32 in [-1, 1]."""
    return image.astype(np.float32) * np.float32(2 / np.iinfo(image.dtype).max) - 1


def cell_names(numbers: Sequence[int] | np.ndarray, first: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Returns the names of latent cells for diffusion.cell_noise.

    Args:
      numbers: numbers of the answers, [n].
      first: (row, column) of the first cell; negative in a border.
      size: numbers of rows and columns.

    Returns:
      int32 [n, rows, columns, 3].
    """
    rows, cols = (np.arange(start, start + count) for start, count in zip(first, size, strict=True))
    return np.stack(np.meshgrid(np.asarray(numbers), rows, cols, indexing="ij"), axis=-1).astype(np.int32)


def lay_out(engine: Engine, plan: Plan, images, sheet: tuple[int, int], sheets: Sequence[Sequence[Part]]) -> Inputs:
    """Lays parts of pictures on sheets.

    Args:
      engine: networks and weights.
      plan: how the pictures are padded.
      images: the pictures, uint8 or uint16 [h w 3].
      sheet: (height, width) of a sheet in input pixels.
      sheets: the parts on each sheet.

    Returns:
      The arrays of the sheets, on the host.
    """
    border, grid, networks = round(plan.border * plan.ratio), plan.cells(sheet), engine.networks
    lr, cells = np.zeros((len(sheets), *sheet, 3), np.float32), np.zeros((len(sheets), *grid, 3), np.int32)
    boxes, sizes = [], [grid] * len(sheets)
    for i, part in ((i, part) for i, parts in enumerate(sheets) for part in parts):
        image, (height, width) = images[part.picture], part.size
        rows, cols = (
            plan.padded_indices(side, window) for side, window in zip(image.shape, (part.rows, part.cols), strict=False)
        )
        lr[i, part.top : part.top + height, part.left : part.left + width] = to_floats(image[rows][:, cols])
        (h, w), (top, left) = plan.cells(part.size), plan.corner(part)
        names = cell_names([0], [at - border for at in plan.origin(part)], (h, w))
        cells[i, top : top + h, left : left + w] = names[0]
        boxes.append((i, top, left, h, w))
        sizes[i] = (h, w)
    if plan.shared:
        inside = frames.rectangles((len(sheets), *grid), boxes)
        return Inputs(lr, cells, None if inside.all() else frames.Frame(inside, inside), None)
    frame = frames.single_frame(engine.config, sizes, grid)
    if frame is None:
        return Inputs(lr, cells, None, None)
    scale = (networks.factor, networks.subcells)
    return Inputs(lr, cells, frame, frames.seen(sizes, grid, networks.border, scale))


def paste(canvas: np.ndarray, z: np.ndarray, plan: Plan, part: Part) -> None:
    """Adds the share of a part, whose latents lie in z [h w c], to the latents of a padded picture [h w c]."""
    (h, w), (top, left), (rows, cols) = plan.cells(part.size), plan.corner(part), (part.rows, part.cols)
    found = z[top : top + h, left : left + w]
    if (h, w) == canvas.shape[:2]:
        canvas[:] = found
        return
    y, x = plan.origin(part)
    of_row, of_col = (one.weights(one.start + (np.arange(n) + 0.5) / plan.ratio) for one, n in ((rows, h), (cols, w)))
    canvas[y : y + h, x : x + w] += of_row[:, None, None] * of_col[None, :, None] * found
