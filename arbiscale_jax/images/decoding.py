"""Decodes one picture of a file of any listed format, upright and in sRGB."""

import re
import struct
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import png as png_format
from arbiscale_jax.images import tiff
from arbiscale_jax.images.colour import from_gamma, to_srgb
from arbiscale_jax.images.exif import upright, upright_exif
from arbiscale_jax.images.formats import check_pixels, open_pillow
from arbiscale_jax.images.levels import to_levels
from arbiscale_jax.images.picture import Metadata, Picture, Raster, to_uint16
from arbiscale_jax.images.pillow_modes import alpha_of, described, to_raster

_XMP_ORIENTATION = re.compile(r'(tiff:Orientation(?:="|>))([1-8])')
XMP = "XML:com.adobe.xmp"  # the keyword under which PNG files hold it


def decode_still(file: BinaryIO, name: str, max_pixels: int) -> Picture:
    """Decodes the first picture of a file; to be called within `limited`.

    Args:
      file: the file.
      name: the name by which error messages call it.
      max_pixels: the largest number of pixels that is accepted.

    Raises:
      UserError: if the file is of no listed format, or the picture is too large.
      Exception: of many types, if the file is damaged.
    """
    head = file.read(16)
    file.seek(0)
    if head.startswith(png_format.SIGNATURE):
        return _decode_png(file, name, max_pixels)
    if tiff.is_tiff(head):
        try:
            return decode_page(file, 0, name, max_pixels)
        except UserError:
            raise
        except Exception as e:  # tifffile reads all tags, of which the pixels may need few
            file.seek(0)
            try:
                with open_pillow(file, name, max_pixels) as image:
                    return from_pillow(image)
            except Exception:
                raise e from None
    if re.match(rb"P[56Ff][\s#]", head) and (raster := _deep_pnm(file, name, max_pixels)):
        return finished(raster, {}, 1, "PPM")
    with open_pillow(file, name, max_pixels) as image:
        return from_pillow(image)


def decode_page(file: BinaryIO, index: int, name: str, max_pixels: int) -> Picture:
    """Decodes one page of a TIFF file, as `decode_still` decodes the first one."""
    raster, info, orientation = tiff.read_page(file, index, name, max_pixels)
    return finished(raster, info, orientation, "TIFF")


def from_pillow(image: Image.Image, info: dict[str, Any] | None = None) -> Picture:
    """Converts an image that Pillow opened or made.

    Args:
      image: an image of any mode.
      info: icc, exif, dpi and text, as in Metadata; by default what the image says itself.
    """
    raster = to_raster(image)
    info = described(image.info) if info is None else info
    return finished(raster, info, _orientation(image), image.format)


def finished(
    raster: Raster, info: dict[str, Any], orientation: int, name: str | None, gamma: float | None = None
) -> Picture:
    """Converts pixels to sRGB, turns them upright and adds their metadata.

    Args:
      raster: the pixels as the file states them.
      info: icc, exif, dpi and text, as in Metadata.
      orientation: that which the file states besides EXIF, or 1.
      name: the name of the format.
      gamma: the power of linear light that the values are, if no profile says more.
    """
    exif, turned = upright_exif(info.get("exif"))
    orientation = turned if turned != 1 else orientation
    colours, icc = raster.colours, info.get("icc")
    converted = to_srgb(colours, icc) if icc else None
    if converted is None:  # there is no profile, or it cannot be used
        icc = None
        if colours.shape[2] == 4:
            converted = _without_ink(colours)
        else:
            converted = colours if gamma is None else from_gamma(colours, gamma)
    if raster.alpha is not None:
        converted = np.concatenate([converted, raster.alpha[..., None]], 2)
    dpi, text = info.get("dpi"), dict(info.get("text") or {})
    if XMP in text:
        text[XMP] = _XMP_ORIENTATION.sub(r"\g<1>1", text[XMP])
    if dpi and orientation > 4:
        dpi = dpi[::-1]
    return Picture(upright(converted, orientation), Metadata(icc, exif, dpi, text, name))


def finished_png(raster: Raster, png: png_format.Png) -> Picture:
    """Makes the value that a PNG file names transparent, and goes on as `finished`."""
    if png.clear is not None and raster.alpha is None and raster.colours.shape[2] == len(png.clear):
        clear = png.clear & (2**png.depth - 1)
        if png.depth < 16:
            clear = clear * (255 // (2**png.depth - 1))  # Pillow widens 1, 2 and 4 bits to 8
        elif raster.colours.dtype == np.uint8:
            clear = clear >> 8  # Pillow narrows the frames of animations
        raster = raster._replace(alpha=alpha_of(raster.colours, clear))
    found = _XMP_ORIENTATION.search(png.info["text"].get(XMP, ""))
    return finished(raster, png.info, int(found[2]) if found else 1, "PNG", png.gamma)


def _orientation(image: Image.Image) -> int:
    """Returns what XMP or another part of an image says beside EXIF data, or 1."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # malformed metadata, which Pillow reports by errors of many types
        return 1
    return found if found in range(1, 9) else 1


def _without_ink(cmyk: np.ndarray) -> np.ndarray:
    """Returns what is left of white light under inks that each take their share of it, without a profile."""
    peak = np.iinfo(cmyk.dtype).max
    light = peak - cmyk.astype(np.uint64)
    return ((light[..., :3] * light[..., 3:] + peak // 2) // peak).astype(cmyk.dtype)


def _decode_png(file: BinaryIO, name: str, max_pixels: int) -> Picture:
    png = png_format.parse(file.read())
    width, height = struct.unpack_from(">II", png.pixels, 16)
    check_pixels(height, width, name, max_pixels)
    if png.animation and not png.starts_with_frame:
        try:
            with open_pillow(BytesIO(png.animation), name, max_pixels) as image:
                image.seek(1)  # the picture before it is for readers that know no animations
                return finished_png(to_raster(image), png)
        except (EOFError, ValueError, SyntaxError, OSError):
            pass  # the animation is damaged, and that picture may not be
    if png.depth == 16 and png.colour in (0, 2, 4, 6):
        values = png_format.decode_deep(png)
        colours = values[..., : values.shape[2] - (png.colour in (4, 6))]
        return finished_png(Raster(colours, values[..., -1] if png.colour in (4, 6) else None), png)
    with open_pillow(BytesIO(png.pixels), name, max_pixels) as image:
        return finished_png(to_raster(image), png)


def _deep_pnm(file: BinaryIO, name: str, max_pixels: int) -> Raster | None:
    """Decodes binary PNM files of 16 bits and float ones in colour, of which Pillow gives 8 bits or none; else None."""
    head = file.read(4096)
    found = re.match(rb"(P[56]|P[Ff])" + rb"(?:\s|#[^\n]*\n)+([-+.\w]+)" * 3 + rb"\s", head)
    file.seek(0)
    if not found or (found[1] != b"PF" and not (found[1] in (b"P5", b"P6") and int(found[4]) > 255)):
        return None
    width, height = int(found[2]), int(found[3])
    check_pixels(height, width, name, max_pixels)
    channels = 1 if found[1] == b"P5" else 3
    floats = found[1] == b"PF"
    dtype = np.dtype(("<f4" if float(found[4]) < 0 else ">f4") if floats else ">u2")
    file.seek(found.end())
    data = file.read(height * width * channels * dtype.itemsize)
    values = np.frombuffer(data, dtype, height * width * channels).reshape(height, width, channels)
    if floats:
        return Raster(to_levels(values[::-1].astype(np.float32)))  # the lowest row is the first
    peak = min(int(found[4]), 65535)
    return Raster(to_uint16(to_levels(values, peak)))
