"""Writes a picture whose rows are made one after another, so that a large one is never held as a whole."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from arbiscale_jax.images.picture import Metadata
from arbiscale_jax.images.saving import FORMATS, save
from arbiscale_jax.images.streams import open_stream

WHOLE_PIXELS = 16_000_000  # a PNG file up to this size is written as a whole, by Pillow, whose files are smaller


def save_rows(
    path: Path,
    size: tuple[int, int],
    rows: Iterable[np.ndarray],
    *,
    quality: int | None = None,
    metadata: Metadata | None = None,
) -> None:
    """Writes a picture in the format that the ending of the name says, complete or not at all.

    TIFF files and large PNG files are written while their rows are made; other formats need the whole picture.

    Args:
      path: the file, which ends in one of saving.FORMATS.
      size: (height, width) of the picture.
      rows: uint8 or uint16 [n, w, c], from the top down.
      quality: as in `save`.
      metadata: what the file says besides the pixels.

    Raises:
      UserError: if the file cannot be written.
    """
    rows = iter(rows)
    first = next(rows)
    rows = itertools.chain([first], rows)
    kind, large = FORMATS[path.suffix.lower()], size[0] * size[1] > WHOLE_PIXELS
    if kind == "TIFF" or (kind == "PNG" and large):
        with open_stream(path, size, first.shape[2], first.dtype, metadata) as stream:
            for some in rows:
                stream.write(some)
        return
    save(path, np.concatenate(list(rows)), quality=quality, metadata=metadata)
