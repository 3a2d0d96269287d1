"""Reads PNG files: what their metadata say, whatever state these are in, and 16 bits where Pillow gives 8.

Section numbers are those of the PNG specification, third edition.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from arbiscale_jax.images.icc import LARGEST

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_BYTES = 16 << 20  # texts beyond this many bytes in all are left out
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # of a colour type, without palettes
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # 8.2
_STILL, _MOVING = (b"IHDR", b"PLTE", b"IDAT", b"IEND"), (b"acTL", b"fcTL", b"fdAT")
_LANES = {1: 0, 2: 4, 3: 2, 4: 6}  # the colour type of as many channels


class Png(NamedTuple):
    """Holds the parts of a PNG file."""

    pixels: bytes  # a PNG file of the chunks alone that the still picture depends on
    animation: bytes | None  # a PNG file of the chunks that the frames depend on, if there are any
    depth: int
    colour: int  # the colour type, 11.2.1
    clear: np.ndarray | None  # the grey or RGB value that is transparent
    gamma: float | None  # gAMA, unless an ICC profile or sRGB overrules it
    info: dict  # icc, exif, dpi and text, as in Metadata
    starts_with_frame: bool  # whether the first frame of an animation is the picture that other readers show


def parse(content: bytes) -> Png:
    """Divides a PNG file into what makes its pixels and what it says about them.

    Chunks of metadata that are malformed, too large or have a wrong checksum are left out.

    Raises:
      ValueError: if the file does not begin with an intact header.
    """
    still, moving, found, texts = [SIGNATURE], [SIGNATURE], {}, {}
    space, header, framed = TEXT_BYTES, b"", False
    for kind, data, whole, intact in _chunks(content):
        if kind == b"IHDR" and not header:
            header = data if intact and len(data) == 13 else b""
        framed |= kind == b"fcTL" and b"IDAT" not in found
        if kind in _STILL or (kind == b"tRNS" and intact and header[9:10] == b"\3"):
            still.append(whole)
            moving.append(whole)
            found[kind] = b""
        elif kind in _MOVING:
            if kind != b"acTL" or (intact and len(data) == 8):
                moving.append(whole)
                found[kind] = b""
        elif not intact:
            continue
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            key, text = _text(kind, data, space)
            space -= len(text)
            if key:
                texts.setdefault(key, text)
        else:
            found.setdefault(kind, data)
    if not header:
        raise ValueError("its header is missing or damaged")
    depth, colour = header[8], header[9]
    icc = _inflate(found.get(b"iCCP", b"").partition(b"\0")[2][1:], LARGEST)
    gamma = struct.unpack(">I", found[b"gAMA"])[0] / 1e5 if len(found.get(b"gAMA", b"")) == 4 else None
    exif = found.get(b"eXIf") or _hex_profile(texts.pop("Raw profile type exif", ""))
    info = dict(icc=icc or None, exif=exif, dpi=_dpi(found.get(b"pHYs", b"")), text=texts)
    if icc or b"sRGB" in found or b"cICP" in found:
        gamma = None
    animation = b"".join(moving) if b"acTL" in found and b"fcTL" in found else None
    clear = _clear(found.get(b"tRNS", b""), colour)
    return Png(b"".join(still), animation, depth, colour, clear, gamma, info, framed)


def decode_deep(png: Png) -> np.ndarray:
    """Decodes a PNG file of 16 bits per channel.

    A filter predicts each byte of a pixel from the same byte of its neighbours (section 9), so the upper bytes of all
    channels are the filtered rows of an image of 8 bits, and so are the lower ones. Pillow decodes both.

    Returns:
      uint16 [h, w, c].

    Raises:
      ValueError: if the data are incomplete.
      zlib.error: if they are damaged.
    """
    chunks = [(kind, data) for kind, data, _, intact in _chunks(png.pixels) if intact or kind != b"IDAT"]
    width, height, *_, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    channels = _CHANNELS[png.colour]
    passes = [(height, width)]
    if interlaced:
        passes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in _PASSES]
        passes = [one for one in passes if min(one) > 0]
    expected = sum(h * (1 + 2 * channels * w) for h, w in passes)
    packed = b"".join(data for kind, data in chunks if kind == b"IDAT")
    if expected > 1033 * (len(packed) + 1):  # deflate packs no closer
        raise ValueError("image file is truncated")
    data = np.frombuffer(zlib.decompressobj().decompress(packed, expected), np.uint8)
    if len(data) < expected:
        raise ValueError("image file is truncated")
    lanes = ([], [])
    for h, w in passes:
        rows, data = data[: h * (1 + 2 * channels * w)].reshape(h, -1), data[h * (1 + 2 * channels * w) :]
        for lane, held in enumerate(lanes):
            held.append(np.concatenate([rows[:, :1], rows[:, 1 + lane :: 2]], 1).tobytes())
    header = struct.pack(">IIBBBBB", width, height, 8, _LANES[channels], 0, 0, interlaced)
    upper, lower = (_decode(header, b"".join(held)) for held in lanes)
    return (upper.astype(np.uint16) << 8 | lower).reshape(height, width, channels)


def chunk(kind: bytes, content: bytes | bytearray) -> bytes:
    """Returns a chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _decode(header: bytes, rows: bytes) -> np.ndarray:
    """Decodes filtered rows of 8 bits per channel."""
    file = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")
    with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
        return np.asarray(image)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Yields (kind, data, the whole chunk, whether it is complete and its checksum right) up to IEND."""
    place, kind = len(SIGNATURE), b""
    while place + 8 <= len(content) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        data, sum_ = content[place + 8 : end - 4], content[end - 4 : end]
        intact = end <= len(content) and sum_ == struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        yield kind, data, content[place:end], intact
        place = end


def _inflate(packed: bytes, longest: int) -> bytes:
    """Decompresses up to `longest` bytes; returns nothing if there are more or they are damaged."""
    if longest < 1:  # zlib takes 0 for no limit
        return b""
    decompressor = zlib.decompressobj()
    try:
        found = decompressor.decompress(packed, longest)
    except zlib.error:
        return b""
    return b"" if decompressor.unconsumed_tail or not decompressor.eof else found


def _text(kind: bytes, data: bytes, longest: int) -> tuple[str, str]:
    """Returns the keyword and the text of a chunk, 11.3.3; ("", "") if it is malformed or longer than `longest`."""
    key, _, rest = data.partition(b"\0")
    name = key.decode("latin-1")
    if kind == b"tEXt":
        return (name, rest.decode("latin-1")) if len(rest) <= longest else ("", "")
    if kind == b"zTXt":
        text = _inflate(rest[1:], longest)
        return (name, text.decode("latin-1")) if text else ("", "")
    packed, *parts = rest[:1], *rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return "", ""
    text = _inflate(parts[2], longest) if packed == b"\1" else parts[2]
    return (name, text.decode("utf-8", "replace")) if 0 < len(text) <= longest else ("", "")


def _hex_profile(text: str) -> bytes | None:
    """Returns the bytes that ImageMagick writes as hexadecimal text: a name, a length, digits."""
    try:
        return bytes.fromhex("".join(text.split()[2:])) or None
    except ValueError:
        return None


def _dpi(data: bytes) -> tuple[float, float] | None:
    """Returns pixels per inch (across, down) of a pHYs chunk, which states them per metre."""
    if len(data) != 9 or data[8] != 1:
        return None
    across, down = struct.unpack(">II", data[:8])
    return (round(across * 0.0254, 3), round(down * 0.0254, 3)) if across and down else None


def _clear(data: bytes, colour: int) -> np.ndarray | None:
    """Returns the grey or RGB value that a tRNS chunk makes transparent."""
    number = {0: 1, 2: 3}.get(colour)
    return np.array(struct.unpack(f">{number}H", data)) if number and len(data) == 2 * number else None
