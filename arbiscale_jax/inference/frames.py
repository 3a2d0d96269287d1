"""Places pictures in arrays of a few fixed shapes, so that pictures of all sizes share a few compiled programs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from arbiscale_jax import models

SIDES = (16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)
SHARED = 512  # largest side of an array that pictures share: what takes long is done in parts that show progress
FINE_STEP = 16  # sides of sheets for windows are multiples of this length
STEP = 256  # longer sides are multiples of this length


class Frame(NamedTuple):
    """Says which latent cells of an array belong to pictures, and how the U-Net pads them to its multiple."""

    inside: Any  # [b h w] bool, the cells of pictures
    padded: Any  # [b h w] bool, these and the cells that the U-Net's own padding adds
    rows: Any = None  # [b h], the rows from which the padded latent is taken; None means that there is no padding
    cols: Any = None  # [b w], likewise the columns


class Seen(NamedTuple):
    """Describes how a picture in a frame is rendered as E sees it, for back-projection."""

    rows: Any  # [b h'], the rows of z that D sees, with its border
    cols: Any  # [b w']
    inside: Any  # [b h' w'] bool, the cells that D sees
    y: models.Axis  # places of the image's rows on D's cells, with a leading batch axis
    x: models.Axis  # likewise of its columns


class Place(NamedTuple):
    """Says where a picture lies in a pile of sheets."""

    sheet: int
    top: int
    left: int


def sheet_side(length: int, spare: int = 0, multiple: int = 1, *, windows: int = 1) -> int:
    """Returns the least fixed side for `length` places.

    Args:
      length: number of places.
      spare: places by which all fixed sides are longer, such as both borders of a picture.
      multiple: a length of which the side is a multiple.
      windows: number of windows of the picture; if there are several, their work outweighs compiling a program for them
        alone, and the side is little longer than `length`.
    """
    if windows > 1:
        return _above(length, math.lcm(FINE_STEP, multiple))
    sides = (side + spare for side in SIDES if side + spare >= length)
    longer = _above(spare + _above(length - spare, STEP), multiple)
    return next((side for side in sides if side % multiple == 0), longer)


def pack(parts: Sequence[tuple[int, int]], sheet: tuple[int, int], gap: int) -> list[Place]:
    """Packs rectangles into sheets in rows, the tallest first, each into the first row with room (Coffman et al. 1980).

    Args:
      parts: (height, width) of each rectangle; none is larger than a sheet.
      sheet: (height, width) of a sheet.
      gap: distance between neighbours; places are multiples of it.

    Returns:
      The places, in the order of `parts`.
    """
    places = [Place(0, 0, 0)] * len(parts)
    rows: list[tuple[int, int, int]] = []  # (sheet, top, where the next rectangle begins), all as high as their first
    bottoms: list[int] = []  # of each sheet, where its next row begins
    for i in sorted(range(len(parts)), key=lambda i: (-parts[i][0], -parts[i][1], i)):
        height, width = parts[i]
        found = next((k for k, (_, _, left) in enumerate(rows) if left + width <= sheet[1]), None)
        if found is None:
            number = next((k for k, top in enumerate(bottoms) if top + height <= sheet[0]), len(bottoms))
            bottoms += [0] * (number == len(bottoms))
            rows.append((number, bottoms[number], 0))
            bottoms[number] = _above(bottoms[number] + height + gap, gap)
            found = len(rows) - 1
        number, top, left = rows[found]
        places[i] = Place(number, top, left)
        rows[found] = (number, top, _above(left + width + gap, gap))
    return places


def _above(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def best_sheet(
    parts: Sequence[tuple[int, int]], gap: int, spare: int, most: int, *, several: bool = False
) -> tuple[int, int]:
    """Returns the (height, width) of fixed sides for which the sheets that hold all parts are smallest in all.

    Args:
      parts: (height, width) of each rectangle.
      gap: as in `pack`.
      spare: as in `sheet_side`.
      most: largest side, except where a part is larger.
      several: whether a picture has several of the parts, see `sheet_side`.
    """
    height, width = (max(part[dim] for part in parts) for dim in (0, 1))
    windows = 2 if several else 1
    least = (sheet_side(height, spare, gap, windows=windows), sheet_side(width, spare, gap, windows=windows))
    sides = [side + spare for side in SIDES if side + spare <= min(most, SHARED + spare) and not (side + spare) % gap]
    shared = [(y, x) for y in sides for x in sides if y >= height and x >= width] if len(parts) > 1 else []

    def area(sheet):
        return (1 + max(place.sheet for place in pack(parts, sheet, gap))) * sheet[0] * sheet[1]

    return min([least, *shared], key=area)


def reflected(length: int, start: int, stop: int) -> np.ndarray:
    """Returns which of `length` places a padding by reflection puts at start .. stop - 1, as models.reflect does.

    Places that are too far out for a reflection get the nearest one.
    """
    at = np.arange(start, stop)
    far = max(-start, stop - length) >= length
    turned = at if far else np.where(at < 0, -at, np.where(at >= length, 2 * (length - 1) - at, at))
    return np.clip(turned, 0, length - 1)


def rectangles(shape: Sequence[int], boxes: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns a mask of this shape (b, h, w) that is true in boxes (example, top, left, height, width)."""
    mask = np.zeros(shape, bool)
    for example, top, left, height, width in boxes:
        mask[example, top : top + height, left : left + width] = True
    return mask


def single_frame(config: Mapping, sizes: Sequence[tuple[int, int]], sheet: tuple[int, int]) -> Frame | None:
    """Frames pictures that lie at the top left of their own arrays, with the U-Net's padding.

    Args:
      config: the `model` part of a configuration.
      sizes: (height, width) of each picture, in latent cells.
      sheet: (height, width) of the arrays, in latent cells, multiples of the U-Net's.

    Returns:
      The frame, or None if every picture fills its array.
    """
    if all(size == sheet for size in sizes):
        return None
    multiple = 2 ** (len(config["unet"]["channel_mult"]) - 1)
    grown = [tuple(_above(side, multiple) for side in size) for size in sizes]
    shape = (len(sizes), *sheet)
    inside, padded = (rectangles(shape, [(i, 0, 0, *s) for i, s in enumerate(sides)]) for sides in (sizes, grown))
    if grown == list(sizes):
        return Frame(inside, padded)
    rows, cols = (
        np.stack([_extended(size[dim], 0, more[dim], sheet[dim]) for size, more in zip(sizes, grown, strict=True)])
        for dim in (0, 1)
    )
    return Frame(inside, padded, rows, cols)


def _extended(length: int, start: int, stop: int, side: int) -> np.ndarray:
    """Returns the places of `reflected`, followed by the last place until there are `side` places: int32 [side]."""
    places = reflected(length, start, stop)
    return np.append(places, np.full(side - len(places), length - 1)).astype(np.int32)


def seen(sizes: Sequence[tuple[int, int]], sheet: tuple[int, int], border: int, scale: tuple[int, int]) -> Seen:
    """Describes how framed pictures are rendered as E sees them.

    Args:
      sizes: (height, width) of each picture, in latent cells.
      sheet: (height, width) of the arrays, in latent cells.
      border: width of the border that D sees, in cells.
      scale: (f, sub-cells of D per latent cell) along a side.
    """
    factor, subcells = scale

    def bordered(dim):
        lengths = [size[dim] for size in sizes]
        return np.stack([_extended(n, -border, n + border, sheet[dim] + 2 * border) for n in lengths])

    def axes(dim):
        found = [models.axis(size[dim] * subcells, size[dim] * factor, 0, sheet[dim] * factor) for size in sizes]
        stacked = jax.tree.map(lambda *parts: np.stack(parts), *found)
        return stacked._replace(index=stacked.index + np.int32(border * subcells))

    grown = [tuple(side + 2 * border for side in size) for size in sizes]
    shape = (len(sizes), *(side + 2 * border for side in sheet))
    inside = rectangles(shape, [(i, 0, 0, *size) for i, size in enumerate(grown)])
    return Seen(bordered(0), bordered(1), inside, axes(0), axes(1))
