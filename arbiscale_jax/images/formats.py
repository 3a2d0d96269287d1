"""Lists the formats of image files that are read, and opens them with Pillow under limits."""

import ctypes
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from arbiscale_jax.errors import UserError

MAX_PIXELS = 100_000_000  # the default of --max-pixels

# Formats whose decoders start no other program and hold no video, and the endings of their files. Which of them a file
# is, its content decides, except that TGA has no signature and so must be named.
EXTENSIONS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "ICO": (".ico",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "QOI": (".qoi",),
}
_LOGGERS = ("tifffile", "PIL.TiffImagePlugin", "PIL.PngImagePlugin", "PIL.Image", "PIL.JpegImagePlugin")

_global_state = threading.RLock()  # Pillow's pixel limit and Python's warning filters are shared by all threads


def readable_extensions() -> set[str]:
    """Returns the file extensions of the formats that are read, in lower case and with their dots."""
    return {extension for found in EXTENSIONS.values() for extension in found}


def pillow_formats(name: str) -> list[str]:
    """Returns the formats that Pillow may take a file of this name for; one whose plug-in is missing is left out."""
    Image.init()
    named = Path(name).suffix.lower()
    return [one for one in EXTENSIONS if one in Image.OPEN and (one != "TGA" or named in EXTENSIONS["TGA"])]


def open_pillow(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    """Opens an image file with Pillow, without decoding its pixels; to be called within `limited`.

    Raises:
      UserError: if it is of no listed format, or its first frame has more than max_pixels pixels.
    """
    try:
        image = Image.open(file, formats=pillow_formats(name))
    except Image.UnidentifiedImageError as e:
        raise UserError(
            f"{name} is not an image of a format that is read; give a PNG, JPEG, WebP, TIFF, AVIF, GIF or BMP."
        ) from e
    check_pixels(image.height, image.width, name, max_pixels)
    return image


def check_pixels(height: int, width: int, name: str, max_pixels: int) -> None:
    """Raises UserError if an image has more than max_pixels pixels, or none."""
    if height * width > max_pixels:
        raise too_large(f"{width} x {height} pixels", name, max_pixels)
    if min(height, width) < 1:
        raise UserError(f"{name} is damaged, since it has {width} x {height} pixels; save or copy it again.")


def too_large(size: str, name: str, max_pixels: int) -> UserError:
    """Returns the error about a picture of a size that is not accepted."""
    return UserError(
        f"{name} has {size}, more than the {max_pixels} that are accepted (run_sample.py: --max-pixels); give a "
        "smaller one."
    )


@contextmanager
def _silent_libtiff() -> Iterator[None]:
    """Keeps libtiff, where Pillow has it as a shared library, from printing what is wrong with a file."""
    before = [setter(None) for setter in _libtiff_setters()]
    try:
        yield
    finally:
        for setter, handler in zip(_libtiff_setters(), before, strict=True):
            setter(handler)


@lru_cache(maxsize=1)
def _libtiff_setters() -> list:
    """Returns libtiff's functions that take a handler of errors or warnings and return the one before."""
    try:
        library = ctypes.CDLL(Image.core.__file__)  # its symbols include those of the libraries that it needs
        setters = [library.TIFFSetErrorHandler, library.TIFFSetWarningHandler]
    except (OSError, AttributeError, TypeError):
        return []
    for setter in setters:
        setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    return setters


@contextmanager
def limited(name: str, max_pixels: int) -> Iterator[None]:
    """Sets Pillow's limit on pixels, silences messages about odd metadata, and turns decoders' errors into UserErrors.

    Decoders raise many types of errors about damaged files: SyntaxError, struct.error, RecursionError and others.

    Args:
      name: the name by which error messages call the file.
      max_pixels: the largest number of pixels that is accepted.

    Raises:
      UserError: if the block raises an error.
    """
    with _global_state, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(one) for one in _LOGGERS]
        disabled, limit = [one.disabled for one in loggers], Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow warns beyond it and refuses twice as many
        for one in loggers:
            one.disabled = True
        try:
            with _silent_libtiff():
                yield
        except UserError:
            raise
        except Image.DecompressionBombError as e:
            number = re.search(r"(\d+) pixels", str(e))
            raise too_large(f"{number[1] if number else 'many'} pixels", name, max_pixels) from e
        except MemoryError as e:
            raise UserError(f"{name} needs more memory than there is; give a smaller image.") from e
        except Exception as e:
            reason = " ".join(str(e).split())[:200] or type(e).__name__
            raise UserError(f"{name} is damaged or truncated ({reason}); save or copy it again.") from e
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            for one, was in zip(loggers, disabled, strict=True):
                one.disabled = was
