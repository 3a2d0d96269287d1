"""Takes pictures of several kinds, NumPy arrays, PIL images and files, and gives results back in the kind it got."""

import math
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.decoding import from_pillow
from arbiscale_jax.images.formats import MAX_PIXELS, limited
from arbiscale_jax.images.picture import Picture, to_uint8, to_uint16
from arbiscale_jax.images.reading import read

TAKEN = (
    "a NumPy array of uint8, uint16 or floats in [0, 1], [h, w] or [h, w, c] with 1 to 4 channels; a PIL image; or the "
    "path of an image file"
)


class Kind(NamedTuple):
    """Describes what a caller gave."""

    type: str  # "array" or "pillow"
    dtype: np.dtype
    squeezed: bool = False  # [h, w], without an axis for channels


def to_picture(given: Any, max_pixels: int = MAX_PIXELS) -> Picture:
    """Converts what a caller gave to a picture.

    Args:
      given: an array, uint8, uint16 or floats in [0, 1], [h, w] or [h, w, c] where c is 1 (grey), 2 (grey and alpha), 3
        (RGB) or 4 (RGB and alpha); a PIL image, which is turned as its EXIF data say; the path of an image file; or a
        Picture, which stays as it is. Float values become uint16, and those outside the range are clipped.
      max_pixels: the largest number of pixels of a file or a PIL image that is accepted.

    Returns:
      The picture.

    Raises:
      UserError: if it is none of these.
    """
    if isinstance(given, Picture):
        return given
    if isinstance(given, str | PathLike):
        return read(given, max_pixels)
    if isinstance(given, Image.Image):
        with limited("The PIL image", max(max_pixels, given.width * given.height)):
            return from_pillow(given)
    if not hasattr(given, "__array__"):
        raise UserError(f"A picture is {TAKEN}; what was given is {type(given).__name__}.")
    pixels = np.asarray(given)
    shape = "x".join(map(str, pixels.shape))
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or not pixels.size:
        raise UserError(f"A picture is {TAKEN}; what was given is an array [{shape}] of {pixels.dtype}.")
    if pixels.dtype in (np.uint8, np.uint16):
        return Picture(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
    if pixels.dtype.kind != "f" and pixels.dtype.name != "bfloat16":
        raise UserError(f"A picture is {TAKEN}; what was given is an array of {pixels.dtype}.")
    values = pixels.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError("The floats of a picture lie in [0, 1]; some that were given are infinite or not a number.")
    if low < -0.5 or high > 2:  # resampling overshoots, but not so far: these are pixels in another range
        raise UserError(
            f"The floats of a picture lie in [0, 1], but those that were given lie in [{low:.4g}, {high:.4g}]; scale "
            "them or give uint8 or uint16."
        )
    return Picture(np.rint(np.clip(values, 0, 1) * np.float32(65535)).astype(np.uint16))


def kind_of(given: Any) -> Kind:
    """Describes what `to_picture` took, for `like`; a path's kind is an array of the file's depth."""
    if isinstance(given, Image.Image):
        return Kind("pillow", np.dtype(np.uint16 if given.mode.startswith(("I", "F")) else np.uint8))
    if isinstance(given, Picture):
        return Kind("array", given.pixels.dtype)
    if isinstance(given, str | PathLike):
        return Kind("array", np.dtype(object))
    given = np.asarray(given)
    return Kind("array", given.dtype, given.ndim == 2)


def like(pixels: np.ndarray, given: Any) -> Any:
    """Returns a result in the kind of what was given.

    Args:
      pixels: uint8 or uint16 [h, w, c].
      given: what `to_picture` took, or what `kind_of` said of it.

    Returns:
      For an array, one of the same dtype, floats in [0, 1], and [h, w] for [h, w]; for a path or a Picture, an array
      [h, w, c] of the depth that the pixels have; for a PIL image, one of the mode L, LA, RGB or RGBA, or I;16 for grey
      of more than 8 bits.
    """
    kind = given if isinstance(given, Kind) else kind_of(given)
    if kind.type == "pillow":
        if pixels.shape[2] == 1:
            values = to_uint16(pixels) if kind.dtype == np.uint16 else to_uint8(pixels)
            return Image.fromarray(np.ascontiguousarray(values[..., 0]))
        return pillow_image(pixels)
    if kind.squeezed and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if kind.dtype.kind == "f" or kind.dtype.name == "bfloat16":
        return (pixels / np.float64(np.iinfo(pixels.dtype).max)).astype(kind.dtype)
    if kind.dtype.kind == "u":
        return to_uint8(pixels) if kind.dtype.itemsize == 1 else to_uint16(pixels)
    return pixels


def answers_like(answers: np.ndarray, given: Any) -> Any:
    """Returns answers [n, h, w, c] in the kind of what was given: an array [n, ...], or a list of n PIL images."""
    kind = kind_of(given)
    found = [like(one, kind) for one in answers]
    if kind.type == "pillow":
        return found
    same = found[0].dtype == answers.dtype and found[0].shape == answers.shape[1:]
    return answers if same else np.stack(found)


def pillow_image(pixels: np.ndarray) -> Image.Image:
    """Returns pixels [h, w, c], rounded to 8 bits, as a PIL image of the mode L, LA, RGB or RGBA."""
    narrow = np.ascontiguousarray(to_uint8(pixels))
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[narrow.shape[2]]
    return Image.frombytes(mode, narrow.shape[1::-1], narrow.tobytes())
