"""Reads the pages of TIFF files, and what their tags say; section numbers are those of TIFF 6.0."""

import re
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.colour import from_lab
from arbiscale_jax.images.formats import check_pixels, open_pillow
from arbiscale_jax.images.levels import find_white, to_levels
from arbiscale_jax.images.picture import Raster, divided_by_alpha
from arbiscale_jax.images.pillow_modes import to_raster
from arbiscale_jax.images.tiff_samples import read_samples

MOST_SAMPLES = 8  # per pixel of the largest picture that is accepted
TEXT_TAGS = {"Title": 269, "Description": 270, "Software": 305, "Author": 315, "Copyright": 33432}
_EXIF_TAGS = (271, 272, 305, 306, 315, 33432)  # what cameras write besides the EXIF and GPS directories
_EXIF, _GPS = 34665, 34853
_WEBP = 50001  # a way of compression
_WHITE_IS_0, _GREY, _RGB, _PALETTE, _CMYK, _CIELAB, _ICCLAB = 0, 1, 2, 3, 5, 8, 9
_COLOURS = {_WHITE_IS_0: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _CIELAB: 3, _ICCLAB: 3}
_MACHINE_MADE = re.compile(r'^\s*(\{"shape"|ImageJ=|<\?xml.*<OME|<OME)', re.DOTALL)


def is_tiff(head: bytes) -> bool:
    """Tells whether a file that begins with these bytes is a TIFF or BigTIFF file."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def page_indices(file: BinaryIO) -> list[int]:
    """Returns the indices of a file's pages, without reduced copies and masks of other pages.

    Raises:
      Exception: of many types, if the file is damaged.
    """
    with _opened(file) as tiff:
        pages = [_page(tiff, i) for i in range(len(tiff.pages))]
        return [i for i, page in enumerate(pages) if not i or not page.subfiletype & 5]  # 1 reduced, 4 mask; section 8


def read_page(file: BinaryIO, index: int, name: str, max_pixels: int) -> tuple[Raster, dict[str, Any], int]:
    """Reads a page.

    Args:
      file: the file.
      index: the number of the page among all of the file.
      name: the name by which error messages call it.
      max_pixels: the largest number of pixels that is accepted.

    Returns:
      The pixels; icc, exif, dpi and text, as in Metadata; the orientation.

    Raises:
      UserError: if the page is too large or of a kind that is not read.
      Exception: of many types, if the file is damaged.
    """
    with _opened(file) as tiff:
        page = _page(tiff, index)
        check_pixels(page.imagelength, page.imagewidth, name, max_pixels)
        turned, raster = _value(page, 274), _shallow(page, file, index, name, max_pixels)
        turned = turned if turned in range(1, 9) else 1
        shallow = raster is not None
        if raster is None:
            check_pixels(page.imagelength, page.imagewidth * page.samplesperpixel, name, MOST_SAMPLES * max_pixels)
            raster = _deep(page, file, name)
        info = _described(page)
        info["exif"] = _exif(file, page.offset, tiff.byteorder) if not tiff.is_bigtiff else None
        if shallow and turned > 4 and info["dpi"]:
            info["dpi"] = info["dpi"][::-1]
        return raster, info, 1 if shallow else int(turned)  # Pillow turns pages upright itself


def _opened(file: BinaryIO) -> tifffile.TiffFile:
    file.seek(0)
    return tifffile.TiffFile(file, is_ome=False, is_imagej=False, is_lsm=False)


def _page(tiff: tifffile.TiffFile, index: int) -> tifffile.TiffPage:
    page = tiff.pages[index]
    return page if isinstance(page, tifffile.TiffPage) else page.aspage()


def _shallow(page: tifffile.TiffPage, file: BinaryIO, index: int, name: str, max_pixels: int) -> Raster | None:
    """Decodes a page of at most 8 bits per sample by Pillow; returns None if Pillow does not take it."""
    bits = np.max(page.bitspersample)
    if bits > 8 or np.any(np.asarray(page.sampleformat) != 1) or int(page.photometric) == _ICCLAB:
        return None
    if page.compression == _WEBP:  # which the libtiff in Pillow's wheels does not decode
        return None
    file.seek(0)
    try:
        image = open_pillow(file, name, max_pixels)
        image.seek(index)
        check_pixels(image.height, image.width, name, max_pixels)
        return to_raster(image)
    except (UserError, ValueError, SyntaxError, KeyError):
        if page.compression == 7:
            raise
        return None


def _deep(page: tifffile.TiffPage, file: BinaryIO, name: str) -> Raster:
    """Decodes a page of any depth."""
    kind, alpha_kind = int(page.photometric), None
    if kind not in _COLOURS:
        described = getattr(page.photometric, "name", kind)
        raise UserError(f"{name} holds pixels of the kind {described}, which are not read; save it as RGB.")
    number, extra = _COLOURS[kind], [int(one) for one in page.extrasamples]
    if not extra and kind == _RGB and page.samplesperpixel == 4:
        extra = [2]
    for place, meaning in enumerate(extra):
        if meaning in (1, 2, 999):  # 999 is CorelDRAW's
            alpha_kind = number + place, meaning
            break
    values = read_samples(page, file, name)
    if values.shape[2] < number:
        raise ValueError(f"it has {values.shape[2]} samples per pixel")
    colours = values[..., :number]
    if kind in (_CIELAB, _ICCLAB):
        return Raster(from_lab(_lab(colours, kind)))
    if kind == _PALETTE:
        table = np.asarray(page.colormap).T  # entries 3
        colours = table[np.minimum(colours[..., 0], len(table) - 1)]
        return Raster(to_levels(colours))
    white = None if colours.dtype in (np.uint8, np.uint16) else find_white(colours)
    levels = to_levels(colours, white, inverted=kind == _WHITE_IS_0)
    if alpha_kind is None or alpha_kind[0] >= values.shape[2]:
        return Raster(levels)
    alpha = to_levels(values[..., alpha_kind[0]])
    return Raster(divided_by_alpha(levels, alpha) if alpha_kind[1] == 1 else levels, alpha)


def _lab(values: np.ndarray, kind: int) -> np.ndarray:
    """Returns L* in [0, 100], a* and b* of samples of 8 or 16 bits, section 23 and the ICC's way of writing them."""
    size = values.dtype.itemsize
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    if size > 2:
        raise ValueError(f"Lab samples of {8 * size} bits are not read")
    unit = 256.0 ** (size - 1)
    whole = values.view(f"u{size}").astype(np.float64)
    if kind == _ICCLAB:
        return np.stack(
            [whole[..., 0] * (100 / 255 / unit), whole[..., 1] / unit - 128, whole[..., 2] / unit - 128], -1
        )
    signed = values.view(f"i{size}").astype(np.float64)
    return np.stack([whole[..., 0] * (100 / (256.0**size - 1)), signed[..., 1] / unit, signed[..., 2] / unit], -1)


def _value(page: tifffile.TiffPage, tag: int) -> Any:
    """Returns the value of a tag, or None if it is missing or malformed."""
    try:
        found = page.tags.get(tag)
        return None if found is None else found.value
    except Exception:  # tifffile decodes some values late, and says so in many ways
        return None


def _described(page: tifffile.TiffPage) -> dict[str, Any]:
    """Returns icc, dpi and text, as in Metadata."""
    icc, text = _value(page, 34675), {}
    for key, tag in TEXT_TAGS.items():
        value = _value(page, tag)
        if isinstance(value, str) and value and not _MACHINE_MADE.match(value):
            text[key] = value
    dpi, inches = [], {2: 1.0, 3: 2.54}.get(int(_value(page, 296) or 2))
    for tag in (282, 283):
        value = _value(page, tag)
        if inches and isinstance(value, tuple) and len(value) == 2 and value[1] and value[0] / value[1] > 1:
            dpi.append(round(value[0] / value[1] * inches, 3))
    icc = icc if isinstance(icc, bytes) and icc else None
    return dict(icc=icc, dpi=(dpi[0], dpi[1]) if len(dpi) == 2 else None, text=text)


def _exif(file: BinaryIO, offset: int, byteorder: str) -> bytes | None:
    """Returns what a camera wrote into a page's tags as EXIF data, or None if it wrote none, or they are malformed."""
    try:
        found, out = Image.Exif(), Image.Exif()
        found.endian = byteorder
        found.load_from_fp(file, offset)
        for tag in (_EXIF, _GPS):
            if tag in found and (directory := found.get_ifd(tag)):
                out[tag] = dict(directory)
        if not dict(out) and 271 not in found and 272 not in found:
            return None
        for tag in _EXIF_TAGS:
            if tag in found:
                out[tag] = found[tag]
        return out.tobytes()
    except Exception:  # Pillow reports malformed tags by errors of many types
        return None
