"""Reads the pictures and writes the results of `upscale` and `generate`: the one place that knows formats of files."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from arbiscale_jax import images
from arbiscale_jax.cli import files

SUFFIXES = (".png",)  # what a result's name may end with
FOREIGN = (".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif", ".gif", ".bmp")  # names of pictures that are not written


def extensions() -> set[str]:
    """Returns the extensions, in lower case and with dots, of the files in a folder that are taken for pictures."""
    return images.readable_extensions()


def suffix(opts: dict) -> str:
    """Returns what the names of results end with, such as .png; `opts` are the values of all flags."""
    del opts  # no flag says something about the format so far
    return SUFFIXES[0]


def read(path: Path, opts: dict) -> np.ndarray:
    """Reads a picture as the model takes it.

    Args:
      path: the file.
      opts: the values of all flags.

    Returns:
      The picture, uint8 [h, w, 3].

    Raises:
      UserError: if the file cannot be read as a picture.
    """
    return images.read_image(path, opts["max-pixels"])


def write(path: Path, size: tuple[int, int], rows: Iterable[np.ndarray], opts: dict) -> None:
    """Writes a result, complete or not at all.

    Args:
      path: the file.
      size: (height, width) of the result.
      rows: uint8 [n, w, 3], from the top down.
      opts: the values of all flags.

    Raises:
      UserError: if the file cannot be written.
    """
    del opts  # as in `suffix`
    files.write_rows(path, size, rows)


def dropped(path: Path) -> str:
    """Says which part of a picture `read` leaves out, such as 'it has 3 frames, ...', or returns ''."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                word = "pages" if image.format == "TIFF" else "frames"
                number, transparent = getattr(image, "n_frames", 1), image.has_transparency_data
    except Exception:  # what cannot be opened here is reported where it is read
        return ""
    said = [f"it has {number} {word}, of which the first alone is upscaled"] if number > 1 else []
    said += ["its transparency is lost, since it is put on white"] if transparent else []
    return " and ".join(said)
