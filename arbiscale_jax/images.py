"""Reads image files of any kind as uint8 RGB arrays."""

import io
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from arbiscale_jax.errors import UserError

MAX_PIXELS = 100_000_000  # the default of --max-pixels

_global_state = threading.Lock()  # Pillow's pixel limit and Python's warning filters are shared by all threads


def readable_extensions() -> set[str]:
    """Returns the file extensions that Pillow can read, in lower case and with their dots."""
    return {extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN}


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads an image of any mode as RGB.

    The image is turned upright by its EXIF tag and converted to sRGB; transparent parts are shown on white.

    Args:
      path: the image file.
      max_pixels: the largest number of pixels that is accepted.

    Returns:
      A uint8 array [h, w, 3].

    Raises:
      UserError: if the file is missing, damaged, not an image, or declares more than max_pixels pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no image file {path}." if not path.exists() else f"{path} is not a file.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; copy the image again.")
    return _decode(path, str(path), max_pixels)


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
    return _decode(io.BytesIO(content), name, max_pixels)


def _decode(file: Path | io.BytesIO, name: str, max_pixels: int) -> np.ndarray:
    with _no_bomb_check():
        try:
            image = Image.open(file)
        except Image.UnidentifiedImageError as e:
            raise UserError(f"{name} is not an image that Pillow can read; give a PNG, JPEG, WebP or TIFF.") from e
        except Exception as e:  # damaged files make Pillow's decoders raise many types: SyntaxError, struct.error, ...
            raise UserError(f"{name} cannot be read ({e}); save or copy it again.") from e
        with image:
            if image.width * image.height > max_pixels:
                raise UserError(
                    f"{name} has {image.width} x {image.height} pixels, more than the {max_pixels} that are "
                    "accepted (run_sample.py: --max-pixels); give a smaller one."
                )
            try:
                return _to_rgb(image)
            except Exception as e:
                raise UserError(f"{name} is damaged or truncated ({e}); save or copy it again.") from e


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Converts an opened image to uint8 [h, w, 3]."""
    if image.mode == "F" or image.mode.startswith("I"):  # one channel deeper than 8 bits, which convert() would clip
        is_16_bit = image.mode.startswith("I;16")
        return _from_deep_grey(np.asarray(ImageOps.exif_transpose(image)), is_16_bit)
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("LAB", "HSV", "YCbCr", "CMYK", "RGB", "RGBA") and profile:
        image = _to_srgb(image, profile)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _from_deep_grey(grey: np.ndarray, is_16_bit: bool) -> np.ndarray:
    """Scales a grey image [h, w] to uint8 [h, w, 3].

    A 32-bit image does not state its white level, which is taken to be 1, 255 or 65535 from its largest value.
    """
    grey = np.nan_to_num(grey.astype(np.float64))
    peak = 65535 if is_16_bit else grey.max(initial=0.0)
    scale = 255.0 if peak <= 1 else 1.0 if peak <= 255 else 255 / 65535
    grey = np.clip(np.rint(grey * scale), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)  # h w 3


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts an image from its embedded colour profile to sRGB; a profile that cannot be used is ignored."""
    try:
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


@contextmanager
def _no_bomb_check():
    """Lifts Pillow's own limit on pixels, which max_pixels replaces, and silences its warnings about odd metadata."""
    with _global_state, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
