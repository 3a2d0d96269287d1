"""Turns arrays into the bytes that are sent: windows as PNG, results in the formats of the command line."""

import io
import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import features

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import Metadata
from arbiscale_jax.images.kinds import pillow_image
from arbiscale_jax.images.row_saving import save_rows
from arbiscale_jax.images.saving import ENDINGS, FORMATS, QUALITY, check_file

Format = Literal["png", "jpg", "webp", "tiff", "avif"]
TYPES: dict[Format, str] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "avif": "image/avif",
}
_BAND_BYTES = 2**24  # of a result that are read from the disk at a time


def encode_window(pixels: np.ndarray) -> bytes:
    """Returns a window, uint8 or uint16 [h w c], as a PNG file of 8 bits."""
    buffer = io.BytesIO()
    pillow_image(pixels).save(buffer, "PNG", compress_level=1)  # a higher level takes longer than rendering
    return buffer.getvalue()


def write_result(
    folder: Path, pixels: np.ndarray, kind: Format, quality: int | None, metadata: Metadata | None
) -> Path:
    """Writes a result to a new file, with the bytes that the command line would write.

    Args:
      folder: where the file is made.
      pixels: uint8 or uint16 [h w c].
      kind: the format.
      quality: from 1 to 100, for formats with loss; None means the default.
      metadata: what the file says besides the pixels.

    Returns:
      The file, which the caller deletes.

    Raises:
      UserError: if the format cannot hold the picture, or takes no quality.
    """
    ending, size = ENDINGS[kind], (pixels.shape[0], pixels.shape[1])
    if quality is not None and FORMATS[ending] not in QUALITY:
        raise UserError(f"quality says nothing about {kind}, which is without loss; choose jpg, webp or avif.")
    handle, name = tempfile.mkstemp(ending, "result_", folder)
    os.close(handle)
    try:
        check_file(f"result{ending}", size, quality)
        step = max(1, _BAND_BYTES // (pixels.shape[1] * pixels.shape[2] * pixels.itemsize))
        rows = (np.asarray(pixels[first : first + step]) for first in range(0, len(pixels), step))
        save_rows(Path(name), size, rows, quality=quality, metadata=metadata)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def formats() -> list[dict]:
    """Returns the formats that this machine writes, with the default of their quality, or None without loss."""
    there = [kind for kind in ENDINGS if kind != "avif" or features.check("avif")]
    return [{"name": kind, "quality": QUALITY.get(FORMATS[ENDINGS[kind]])} for kind in there]
