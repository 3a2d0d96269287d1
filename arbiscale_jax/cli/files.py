"""Writes results that are complete or not there at all."""

import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.streams import open_stream
from arbiscale_jax.runtime.whole_files import replacing

WHOLE_PIXELS = 16_000_000  # images up to this size are written as a whole


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 RGB [h, w, 3] as a PNG file, complete or not at all.

    Raises:
      UserError: if the folder cannot be written or the disk is full.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    write_bytes(path, buffer.getbuffer())


def write_rows(path: str | Path, size: tuple[int, int], rows: Iterable[np.ndarray]) -> None:
    """Writes rows, uint8 RGB [n, w, 3] from the top down, as a PNG file, complete or not at all.

    A small image is written by Pillow, whose files are smaller; a large one row by row, in little memory.

    Args:
      path: the file.
      size: (height, width) of the image.
      rows: the rows.

    Raises:
      UserError: if the folder cannot be written or the disk is full.
    """
    if size[0] * size[1] <= WHOLE_PIXELS:
        write_image(path, np.concatenate(list(rows)))
        return
    with open_stream(path, size) as stream:
        for some in rows:
            stream.write(some)


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Writes a file under a temporary name in its folder and then renames it.

    Raises:
      UserError: if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as e:
        raise UserError(f"{path} cannot be written ({e.strerror}); choose another --output or make room.") from e


def check_output_folder(folder: str | Path, num_bytes: int) -> None:
    """Checks that `folder` can hold about num_bytes more, without creating anything.

    Raises:
      UserError: if it is a file, lies below one or cannot be written, or its disk is too full.
    """
    folder = Path(folder)
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"--output={folder} cannot be a folder, since {parent} is a file; give another folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--output={folder} cannot be written; give a folder that you may write to.")
    free = shutil.disk_usage(parent).free
    if num_bytes > free:
        raise UserError(
            f"The output needs up to {num_bytes / 1e9:.1f} GB, but the disk of --output={folder} has "
            f"{free / 1e9:.1f} GB free; make room or ask for fewer or smaller images."
        )
