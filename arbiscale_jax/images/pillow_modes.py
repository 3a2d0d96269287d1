"""Takes the values out of Pillow images of every mode, and what Pillow says about them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from arbiscale_jax.images.colour import from_lab
from arbiscale_jax.images.levels import to_levels
from arbiscale_jax.images.picture import Raster, divided_by_alpha

_OPAQUE = {"HSV": "RGB", "YCbCr": "RGB", "RGBX": "RGB"}  # modes that Pillow converts without loss of meaning


def to_raster(image: Image.Image) -> Raster:
    """Returns the pixels of an image of any mode, before colour profile and orientation.

    Transparency that the image's info states as an index or a value becomes alpha. Palettes of greys alone are grey.
    """
    mode = image.mode
    if mode == "P":
        return _from_palette(image)
    if mode == "PA":
        image, mode = image.convert("RGBA"), "RGBA"
    if mode in _OPAQUE:
        image, mode = image.convert(_OPAQUE[mode]), _OPAQUE[mode]
    if mode == "LAB":
        lab = np.asarray(image)  # a* and b* are signed bytes
        signed = lab.view(np.int8).astype(np.float64)
        return Raster(from_lab(np.stack([lab[..., 0] * (100 / 255), signed[..., 1], signed[..., 2]], -1)))
    values = np.asarray(image)
    if mode == "F" or mode.startswith("I"):
        values = to_levels(values.astype(np.uint16) if mode.startswith("I;16") else values)
        return Raster(values[..., None], _keyed(values[..., None], image.info))
    if mode == "1":
        values = values.astype(np.uint8) * np.uint8(255)
    values = values.reshape(*values.shape[:2], -1)
    if mode in ("LA", "La", "RGBA", "RGBa"):
        colours, alpha = values[..., :-1], values[..., -1]
        return Raster(divided_by_alpha(colours, alpha) if mode.endswith("a") else colours, alpha)
    return Raster(values, _keyed(values, image.info))


def alpha_of(colours: np.ndarray, clear: Any) -> np.ndarray:
    """Returns alpha [h, w] that is 0 where colours [h, w, c] equal `clear`, and opaque elsewhere."""
    opaque = (colours != np.asarray(clear, np.int64)).any(-1)
    return opaque.astype(colours.dtype) * np.iinfo(colours.dtype).max


def described(info: Mapping) -> dict[str, Any]:
    """Returns icc, exif, dpi and text, as in Metadata, from what Pillow says, without malformed ones."""
    icc, exif, comment = info.get("icc_profile"), info.get("exif"), info.get("comment")
    text = {}
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace")
    if isinstance(comment, str) and comment.strip("\0 "):
        text["Comment"] = comment.rstrip("\0")
    icc, exif = (one if isinstance(one, bytes) and one else None for one in (icc, exif))
    return dict(icc=icc, exif=exif, dpi=_dpi(info.get("dpi")), text=text)


def _dpi(given: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(one) for one in given)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (round(across, 3), round(down, 3)) if 1 <= across < 1e6 and 1 <= down < 1e6 else None


def _keyed(colours: np.ndarray, info: Mapping) -> np.ndarray | None:
    """Returns alpha if the image's info names a transparent value."""
    clear = info.get("transparency")
    if isinstance(clear, int) or (isinstance(clear, tuple) and len(clear) == colours.shape[2]):
        return alpha_of(colours, clear)
    return None


def _from_palette(image: Image.Image) -> Raster:
    values = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    colours = values[..., :3]
    if (colours == colours[..., :1]).all():
        colours = colours[..., :1]
    return Raster(colours, values[..., 3] if values.shape[2] == 4 else None)
