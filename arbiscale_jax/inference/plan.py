"""Plans how pictures of any sizes are sampled: padded, cut into windows, and placed in arrays of a few shapes."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from arbiscale_jax import models

from . import frames, windows
from .memory import largest_side, sampling_bytes
from .options import Sampling


class Plan(NamedTuple):
    """Says how pictures are padded and cut into windows; lengths are in input pixels."""

    border: int  # width of the reflection on each side of a picture
    multiple: int  # padded pictures and windows are multiples of it; more is padded below and at the right
    ratio: float  # latent cells per pixel
    overlap: windows.Overlap  # how windows overlap
    shared: bool  # whether several pictures may lie in one array
    most: int  # largest side of a window

    def padded(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns the (height, width) of a padded picture of this shape [h, w, ...]."""
        height, width = (self._padded(side) for side in shape[:2])
        return height, width

    def _padded(self, length: int) -> int:
        length += 2 * self.border
        return length + -length % self.multiple

    def cut(self, length: int) -> list[windows.Window]:
        """Cuts a padded axis into windows."""
        most = length if self.ratio % 1 else self.most  # windows of a fraction of a cell would not fit together
        return windows.cut(length, most, self.overlap)

    def blends(self, shape: Sequence[int]) -> bool:
        """Returns whether a picture of this shape [h, w, ...] is cut into windows that are blended."""
        return self.overlap.ramp > 0 and any(len(self.cut(side)) > 1 for side in self.padded(shape))

    def padded_indices(self, length: int, window: windows.Window) -> np.ndarray:
        """Returns which of the `length` pixels of a picture's axis a window of the padded axis shows."""
        places = frames.reflected(length, -self.border, self._padded(length) - self.border)
        return places[window.start : window.stop]

    def crop(self, z: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Cuts the latents of a picture of this shape [h, w, ...] out of those of the padded picture [n h w c]."""
        low = round(self.border * self.ratio)
        height, width = self.cells(shape[:2])
        return z[:, low : low + height, low : low + width]

    def corner(self, part: "Part") -> tuple[int, int]:
        """Returns the (row, column) of the latent cell where a part lies on its sheet."""
        return round(part.top * self.ratio), round(part.left * self.ratio)

    def origin(self, part: "Part") -> tuple[int, int]:
        """Returns the (row, column) of the latent cell of the padded picture where a part begins."""
        return round(part.rows.start * self.ratio), round(part.cols.start * self.ratio)

    def cells(self, sides: Sequence[int]) -> tuple[int, int]:
        """Returns how many latent cells these numbers of padded pixels become."""
        height, width = (max(1, round(side * self.ratio)) for side in sides)
        return height, width


def make_plan(config: Mapping, options: Sampling, most: int | None = None) -> Plan:
    """Plans how pictures are sampled.

    Args:
      config: the `model` part of a configuration, complete.
      options: how latents are sampled; each evaluation of the U-Net widens what a pixel depends on.
      most: largest side of a window in input pixels; by default it depends on the free memory.
    """
    ratio, border = config["condition"]["upsampling"] / models.spatial_factor(config), 0
    while border * ratio < config["sampling"]["border"] or (border * ratio) % 1:
        border += 1
    reach = models.reach(config, options.steps)
    most = largest_side(sampling_bytes(config)) if most is None else most
    if reach is None or ratio % 1:
        return Plan(border, 1, ratio, windows.Overlap(windows.DEAD, windows.RAMP), False, most)
    multiple = max(1, round(2 ** (len(config["unet"]["channel_mult"]) - 1) / ratio))
    overlap = windows.Overlap(math.ceil(reach / ratio), 0, multiple)
    return Plan(border, multiple, ratio, overlap, not options.refine, most)


class Part(NamedTuple):
    """Describes one window of one padded picture, and where it lies on its sheet; lengths are in input pixels."""

    picture: int
    rows: windows.Window
    cols: windows.Window
    top: int = 0
    left: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Returns its (height, width)."""
        return self.rows.length, self.cols.length


class Pile(NamedTuple):
    """Holds parts that lie on sheets, arrays of one shape."""

    sheet: tuple[int, int]  # (height, width) of a sheet in input pixels
    sheets: list[list[Part]]  # the parts on each sheet


def make_piles(config: Mapping, plan: Plan, shapes: Sequence[Sequence[int]]) -> list[Pile]:
    """Cuts pictures into windows and places these in sheets.

    Args:
      config: the `model` part of a configuration, complete.
      plan: the plan.
      shapes: the shape [h, w, ...] of each picture.
    """
    parts = []
    for number, shape in enumerate(shapes):
        rows, cols = map(plan.cut, plan.padded(shape))
        parts += [Part(number, row, col) for row in rows for col in cols]
    if plan.shared and parts:
        sizes = [part.size for part in parts]
        several = len(parts) > len(shapes)
        sheet = frames.best_sheet(sizes, plan.multiple, 2 * plan.border, plan.most, several=several)
        pile = Pile(sheet, [])
        for part, place in zip(parts, frames.pack(sizes, sheet, plan.multiple), strict=True):
            pile.sheets.extend([] for _ in range(place.sheet + 1 - len(pile.sheets)))
            pile.sheets[place.sheet].append(part._replace(top=place.top, left=place.left))
        return [pile]
    multiple = 2 ** (len(config["unet"]["channel_mult"]) - 1)
    found: dict[tuple[int, int], Pile] = {}
    for part in parts:
        height, width = part.size
        if not plan.ratio % 1:
            pixels = multiple // math.gcd(multiple, int(plan.ratio))
            height, width = (frames.sheet_side(side, 2 * plan.border, pixels) for side in part.size)
        found.setdefault((height, width), Pile((height, width), [])).sheets.append([part])
    return list(found.values())
