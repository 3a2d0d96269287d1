"""Reads image files of any listed format, from the disk or from memory."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.alpha import on_white
from arbiscale_jax.images.decoding import decode_still
from arbiscale_jax.images.formats import MAX_PIXELS, limited
from arbiscale_jax.images.picture import Picture, to_uint8
from arbiscale_jax.images.sequences import Frames, count_frames


def read(source: str | PathLike | bytes, max_pixels: int = MAX_PIXELS, frame: int = 0) -> Picture:
    """Reads a picture of any mode and depth.

    The picture is turned upright by its EXIF tag and converted to sRGB in its depth; alpha is kept. Values of 16 bits
    stay as they are; wider integers and floats become 16 bits, with white at 1, 255, 65535 or the largest value of the
    type, by the range of most values.

    Args:
      source: the path of an image file, or the bytes of one.
      max_pixels: the largest number of pixels that is accepted.
      frame: which frame of an animation or page of a TIFF file is read, counted from 0.

    Returns:
      The picture and its metadata. A malformed part of the metadata is left out.

    Raises:
      UserError: if the file is missing, damaged, not an image of a listed format, or declares more than max_pixels
        pixels, or it has no such frame.
    """
    with opened(source) as (file, name):
        return _read(file, name, max_pixels, frame)


def read_frames(source: str | PathLike | bytes, max_pixels: int = MAX_PIXELS) -> Frames:
    """Reads the frames of an animated GIF, WebP or PNG file, the pages of a TIFF file, or the one picture of another.

    Args:
      source: as in `read`.
      max_pixels: the largest number of pixels of a frame that is accepted.

    Returns:
      Frames, whose number is known, and which are decoded while they are iterated over, each one whole: what a frame
      of an animation leaves out is taken from those before.

    Raises:
      UserError: as `read`; damage in a later frame shows when it is reached.
    """
    with opened(source) as (file, name), limited(name, max_pixels):
        num, loop, kind = count_frames(file, name, max_pixels)
    return Frames(num, loop, kind, lambda: opened(source), max_pixels)


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads an image of any mode as RGB.

    The image is read as by `read`; transparent parts are shown on white.

    Args:
      path: the image file.
      max_pixels: the largest number of pixels that is accepted.

    Returns:
      A uint8 array [h, w, 3].

    Raises:
      UserError: if the file is missing, damaged, not an image, or declares more than max_pixels pixels.
    """
    return _rgb(read(Path(path), max_pixels))


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file that is held in memory, as `read_image` decodes one on disk.

    Args:
      content: the bytes of the file.
      name: the name by which error messages call it.
      max_pixels: the largest number of pixels that is accepted.

    Returns:
      A uint8 array [h, w, 3].

    Raises:
      UserError: if the content is damaged, not an image, or declares more than max_pixels pixels.
    """
    if not content:
        raise UserError(f"{name} is empty; copy the image again.")
    return _rgb(_read(io.BytesIO(content), name, max_pixels, 0))


@contextmanager
def opened(source: str | PathLike | bytes) -> Iterator[tuple[BinaryIO, str]]:
    """Opens a file, or the bytes of one, and yields it with the name by which error messages call it.

    Raises:
      UserError: if there is no such file, or it is empty or cannot be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        if not len(source):
            raise UserError("The image in memory is empty; give the bytes of an image file.")
        yield io.BytesIO(source), "The image in memory"
        return
    path = Path(source)
    try:
        if not path.is_file():
            raise UserError(f"There is no image file {path}." if not path.exists() else f"{path} is not a file.")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; copy the image again.")
        file = path.open("rb")
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror}); give a file that you may read.") from e
    with file:
        yield file, str(path)


def _read(file: BinaryIO, name: str, max_pixels: int, frame: int) -> Picture:
    if frame == 0:
        with limited(name, max_pixels):
            return decode_still(file, name, max_pixels)
    with limited(name, max_pixels):
        num, loop, kind = count_frames(file, name, max_pixels)
    if not 0 <= frame < num:
        raise UserError(f"{name} has {num} frames, so that there is no frame {frame}; give one from 0 to {num - 1}.")

    @contextmanager
    def again() -> Iterator[tuple[BinaryIO, str]]:
        yield file, name

    return Frames(num, loop, kind, again, max_pixels)[frame]


def _rgb(picture: Picture) -> np.ndarray:
    pixels = to_uint8(on_white(picture.pixels))
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
