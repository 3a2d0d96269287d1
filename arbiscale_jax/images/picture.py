"""Describes a picture in memory: its pixels, and what its file says besides them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Metadata:
    """Holds what a file says about a picture besides its pixels."""

    icc: bytes | None = None  # the ICC profile of the file; the pixels in memory are sRGB all the same
    exif: bytes | None = None  # a TIFF structure without the prefix "Exif\0\0", whose orientation is 1
    dpi: tuple[float, float] | None = None  # pixels per inch (across, down)
    text: Mapping[str, str] = field(default_factory=dict)  # PNG keywords such as Title, Author, Description, Comment
    format: str | None = None  # Pillow's name of the file's format, as PNG or JPEG


@dataclass(frozen=True)
class Picture:
    """Holds an upright picture in sRGB.

    pixels is uint8 or uint16 [h, w, c] with c = 1 for grey, 2 for grey and alpha, 3 for RGB and 4 for RGB and alpha;
    alpha is not multiplied into the colours.
    """

    pixels: np.ndarray
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def has_alpha(self) -> bool:
        """Tells whether the last channel is alpha."""
        return self.pixels.shape[2] in (2, 4)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Rounds uint16 pixels to uint8, so that 65535 becomes 255; uint8 stays as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_uint16(pixels: np.ndarray) -> np.ndarray:
    """Widens uint8 pixels to uint16, so that 255 becomes 65535; uint16 stays as it is."""
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


class Raster(NamedTuple):
    """Holds pixels as a file states them, not yet in sRGB and upright."""

    colours: np.ndarray  # uint8 or uint16 [h, w, c]: grey (c = 1), RGB (3) or CMYK (4, where 0 is no ink)
    alpha: np.ndarray | None = None  # of the same dtype, [h, w]


def divided_by_alpha(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Returns colours that were multiplied by alpha as they were before, uint8 or uint16; clear pixels are black.

    Args:
      colours: [h, w, c].
      alpha: [h, w], of the same dtype.
    """
    peak = np.iinfo(colours.dtype).max
    parts = np.maximum(alpha, 1)[..., None].astype(np.uint64)
    out = (colours.astype(np.uint64) * peak + parts // 2) // parts
    return np.where(alpha[..., None] > 0, np.minimum(out, peak), 0).astype(colours.dtype)
