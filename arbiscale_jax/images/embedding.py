"""Prepares metadata for files that are written: which profile they carry, and as which chunks, tags and options."""

import dataclasses
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from arbiscale_jax.images.colour import from_srgb
from arbiscale_jax.images.exif import LONGEST
from arbiscale_jax.images.icc import srgb_profile
from arbiscale_jax.images.picture import Metadata
from arbiscale_jax.images.png import chunk
from arbiscale_jax.images.tiff import TEXT_TAGS

EXIF_DIRECTORIES = (34665, 34853)  # EXIF and GPS
_EXIF_TEXTS = (271, 272, 306)  # maker, model, date; TEXT_TAGS has the others
_SHORT_TEXT = 1000  # bytes; longer texts of a PNG file are compressed
_LONGEST_COMMENT = 65533  # bytes, in the one segment of a JPEG file


def embedded(metadata: Metadata | None, channels: int) -> tuple[Metadata, Callable[[np.ndarray], np.ndarray]]:
    """Chooses the profile of a file, and how sRGB pixels are converted to it.

    The source's profile is kept if it consists of curves and a matrix and is for as many colours; RGB pixels of a
    source with another profile are sRGB and have its profile, and grey ones have none.

    Args:
      metadata: that of the source, or None.
      channels: those of the pixels, from 1 to 4.

    Returns:
      The metadata with the profile of the file; a function of uint8 or uint16 pixels [n, w, channels].
    """
    if metadata is None or metadata.icc is None:
        return metadata or Metadata(), lambda pixels: pixels
    colours = 1 if channels < 3 else 3
    convert = from_srgb(metadata.icc, colours)
    if convert is None:
        icc = srgb_profile() if colours == 3 else None
        return dataclasses.replace(metadata, icc=icc), lambda pixels: pixels
    if channels == colours:
        return metadata, convert
    return metadata, lambda pixels: np.concatenate([convert(pixels[..., :-1]), pixels[..., -1:]], 2)


def png_chunks(metadata: Metadata) -> bytes:
    """Returns the chunks of a PNG file that hold metadata and stand behind IHDR."""
    found = []
    if metadata.icc:
        found.append(chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        across, down = (min(max(1, round(one / 0.0254)), 2**31 - 1) for one in metadata.dpi)
        found.append(chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.exif:
        found.append(chunk(b"eXIf", metadata.exif))
    found += itertools.chain(*(_png_text(key, text) for key, text in metadata.text.items()))
    return b"".join(found)


def pillow_options(metadata: Metadata, file_format: str) -> dict[str, Any]:
    """Returns the options that make Pillow write metadata into a JPEG, WebP, AVIF or GIF file."""
    options: dict[str, Any] = {}
    if file_format == "GIF":
        return {"comment": metadata.text["Comment"].encode()} if "Comment" in metadata.text else {}
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if metadata.exif and (file_format != "JPEG" or len(metadata.exif) <= LONGEST):
        options["exif"] = (b"Exif\0\0" if file_format == "JPEG" else b"") + metadata.exif
    if file_format == "JPEG":
        if metadata.dpi and max(metadata.dpi) < 65535:
            options["dpi"] = tuple(max(1, round(one)) for one in metadata.dpi)
        comment = metadata.text.get("Comment", "").encode()
        if 0 < len(comment) <= _LONGEST_COMMENT:
            options["comment"] = comment
    return options


def tiff_options(metadata: Metadata) -> dict[str, Any]:
    """Returns the arguments of tifffile's writers that describe a page."""
    tags: list[tuple[int, str, int, Any, bool]] = []
    texts = {TEXT_TAGS[key]: text for key, text in metadata.text.items() if key in TEXT_TAGS}
    held = _exif_of(metadata)
    texts |= {tag: str(held[tag]) for tag in _EXIF_TEXTS if tag in held}
    for tag, text in sorted(texts.items()):
        if tag not in (270, 305):
            tags.append((tag, "s", 0, text.encode(), True))
    if metadata.icc:
        tags.append((34675, "B", len(metadata.icc), metadata.icc, True))
    options: dict[str, Any] = {"extratags": tags, "software": texts[305].encode() if 305 in texts else False}
    if 270 in texts:
        options["description"] = texts[270].encode()
    if metadata.dpi:
        options |= {"resolution": metadata.dpi, "resolutionunit": "INCH"}
    return options


def add_exif(file: BinaryIO, metadata: Metadata) -> None:
    """Adds the EXIF and GPS directories, for which tifffile has no argument, to the first page of a TIFF file.

    They are appended, and behind them a copy of the page's directory that names them; section 2 of TIFF 6.0.

    Args:
      file: a little-endian file that is not a BigTIFF, open for reading and writing.
      metadata: what is written.
    """
    held = _exif_of(metadata)
    directories = [tag for tag in EXIF_DIRECTORIES if _directory(held, tag)]
    if not directories:
        return
    file.seek(4)
    (place,) = struct.unpack("<I", file.read(4))
    file.seek(place)
    (count,) = struct.unpack("<H", file.read(2))
    entries = [file.read(12) for _ in range(count)]
    next_page = file.read(4)
    for tag in directories:
        start = _even_end(file)
        file.write(_directory(held, tag, start))
        entries.append(struct.pack("<HHII", tag, 4, 1, start))
    start = _even_end(file)
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    file.write(struct.pack("<H", len(entries)) + b"".join(entries) + next_page)
    file.seek(4)
    file.write(struct.pack("<I", start))


def _even_end(file: BinaryIO) -> int:
    """Moves to the end of a file, makes its length even and returns it."""
    if file.seek(0, 2) % 2:
        file.write(b"\0")
    return file.tell()


def _exif_of(metadata: Metadata) -> Image.Exif:
    """Returns the EXIF data, or none if they are malformed."""
    found = Image.Exif()
    try:
        found.load(metadata.exif or b"")
        dict(found)
    except Exception:  # Pillow reports malformed ones by errors of many types
        return Image.Exif()
    return found


def _directory(exif: Image.Exif, tag: int, start: int = 0) -> bytes:
    """Returns a directory within EXIF data as it stands in a TIFF file at `start`; nothing if there is none."""
    try:
        held = exif.get_ifd(tag) if tag in exif else {}
        out = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0", group=tag)
        for one, value in held.items():
            if one != 40965:  # the interoperability directory, whose place is not kept
                out[one] = value
        return out.tobytes(start) if held else b""
    except Exception:
        return b""


def _png_text(key: str, text: str) -> Iterator[bytes]:
    """Yields the chunk of one text, or none if the keyword is not one of a PNG file."""
    try:
        keyword = key.encode("latin-1")
    except UnicodeEncodeError:
        return
    if not 1 <= len(keyword) <= 79 or keyword.strip() != keyword or b"\0" in keyword:
        return
    try:
        plain = text.encode("latin-1")
    except UnicodeEncodeError:
        plain = None
    if plain is None or key.startswith("XML:") or b"\0" in plain:
        encoded = text.encode("utf-8", "replace")
        packed = len(encoded) > _SHORT_TEXT and not key.startswith("XML:")
        content = zlib.compress(encoded) if packed else encoded
        yield chunk(b"iTXt", keyword + b"\0" + bytes([packed]) + b"\0\0\0" + content)
    elif len(plain) > _SHORT_TEXT:
        yield chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(plain))
    else:
        yield chunk(b"tEXt", keyword + b"\0" + plain)
