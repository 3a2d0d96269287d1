"""Writes images that are larger than memory, row by row, as PNG or TIFF files that are complete or not there at all."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.embedding import embedded
from arbiscale_jax.images.picture import Metadata
from arbiscale_jax.images.row_formats import Png, Tiff
from arbiscale_jax.runtime.whole_files import replacing

Convert = Callable[[np.ndarray], np.ndarray]
DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16))


class RowWriter:
    """Takes the rows of one image from the top down; `open_stream` makes it and closes it."""

    def __init__(self, path: Path, encoder: Png | Tiff, shape: tuple[int, int, int], dtype: np.dtype, convert: Convert):
        self._path, self._encoder, self._shape, self._dtype, self._convert = path, encoder, shape, dtype, convert
        self._band = np.empty((encoder.band_rows, *shape[1:]), dtype)  # n w c
        self._held = self._taken = 0  # rows in the band, rows of the image
        self._intact = True

    def write(self, rows: np.ndarray) -> None:
        """Appends rows to the image.

        Args:
          rows: an array [n, W, channels] of the stream's dtype, for any n from 1 to the number of rows still missing.

        Raises:
          ValueError: if the array has another shape or dtype, or the image has no room for so many rows.
          UserError: if the file cannot be written.
        """
        height, *row = self._shape
        if rows.ndim != 3 or list(rows.shape[1:]) != row or not len(rows) or rows.dtype != self._dtype:
            wanted, given = f"[n, {row[0]}, {row[1]}] of {self._dtype}", f"{list(rows.shape)} of {rows.dtype}"
            raise ValueError(f"{self._path} takes rows {wanted}, not {given}.")
        if self._taken + len(rows) > height:
            raise ValueError(f"{self._path} has {height} rows, but {self._taken + len(rows)} were written.")
        self._check_intact()
        self._intact = False
        with reported(self._path):
            while len(rows):
                n = min(len(rows), len(self._band) - self._held)
                self._band[self._held : self._held + n] = rows[:n]
                rows, self._held, self._taken = rows[n:], self._held + n, self._taken + n
                if self._held == len(self._band) or self._taken == height:
                    self._encoder.add(self._convert(self._band[: self._held]))
                    self._held = 0
        self._intact = True

    def finish(self) -> None:
        """Completes the file; `open_stream` calls it.

        Raises:
          ValueError: if rows are missing.
          UserError: if the file cannot be written, or could not be before.
        """
        self._check_intact()
        self._intact = False  # takes no further rows
        if self._taken < self._shape[0]:
            raise ValueError(f"{self._path} has {self._shape[0]} rows, but only {self._taken} were written.")
        with reported(self._path):
            self._encoder.end()

    def _check_intact(self) -> None:
        if not self._intact:
            raise UserError(f"{self._path} is closed, or an error has left it incomplete; write it again.")


@contextmanager
def open_stream(
    path: str | Path,
    size: tuple[int, int],
    channels: int = 3,
    dtype: DTypeLike = np.uint8,
    metadata: Metadata | None = None,
) -> Iterator[RowWriter]:
    """Opens an image file that is written row by row; memory holds a few MB of it.

    The file appears under its name when the block ends. If the block raises, or has not written all rows, no file
    appears, and one that was there stays as it was. If single rows are longer than a MB, about twelve of them are held.

    Args:
      path: a file name that ends in .png, .tif or .tiff; missing folders are made. Both formats are compressed without
        loss, and a TIFF file of more than about 4 GB is a BigTIFF.
      size: (height, width) of the image.
      channels: 1 for grey, 2 for grey and alpha, 3 for RGB, 4 for RGB and alpha; alpha is not multiplied into colours.
      dtype: uint8 or uint16.
      metadata: what the file says besides the pixels; if its profile is kept, the rows, which are sRGB, are converted.

    Yields:
      A `RowWriter`, whose method `write` takes rows [n, width, channels] from the top down.

    Raises:
      UserError: if the name has another ending or is a folder's, the format allows no side as long, the folder cannot
        be written or the disk is full.
      ValueError: if channels or dtype is none of these, a side is below 1, or rows are missing when the block ends.
    """
    path, dtype, (height, width) = Path(path), np.dtype(dtype), size
    encoding = {".png": Png, ".tif": Tiff, ".tiff": Tiff}.get(path.suffix.lower())
    if encoding is None:
        raise UserError(f"{path} cannot be written row by row; give a name that ends in .png, .tif or .tiff.")
    if channels not in (1, 2, 3, 4) or dtype not in DTYPES or min(height, width) < 1:
        raise ValueError(
            f"{path} cannot have {height} x {width} pixels of {channels} channels of {dtype}: sides are at least 1, "
            "channels 1 to 4, and values uint8 or uint16."
        )
    if max(height, width) > encoding.longest_side:
        raise UserError(
            f"{path} cannot have {height} x {width} pixels, since {encoding.name} allows {encoding.longest_side} a "
            "side; ask for a smaller image."
        )
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file.")
    with ExitStack() as stack:
        with reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = stack.enter_context(replacing(path))
            kept, convert = embedded(metadata, channels)
            encoder = encoding(part, (height, width, channels), dtype, kept)
        writer = RowWriter(path, encoder, (height, width, channels), dtype, convert)
        yield writer
        writer.finish()
        with reported(path):
            stack.close()  # gives the file its name


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns an error of the file system within the block into a UserError about the file."""
    try:
        yield
    except OSError as e:
        raise UserError(f"{path} cannot be written ({e.strerror}); choose another --output or make room.") from e
