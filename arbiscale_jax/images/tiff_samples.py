"""Takes the numbers out of TIFF pages of any depth: strips and tiles, planes, predictors, packed bits.

Section numbers are those of TIFF 6.0. Pillow decodes pages of 8 bits itself; of deeper ones it loses values, and
tifffile cannot decompress LZW without a further package, so that Pillow's libtiff decompresses here.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from arbiscale_jax.errors import UserError

_NONE, _DEFLATE = (1,), (8, 32946)
_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
_MOST = {1: 1, 5: 2731, 8: 1033, 32946: 1033, 32773: 64}  # bytes that a byte can stand for
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


class Block(NamedTuple):
    """Describes a strip or a tile."""

    number: int
    plane: int
    top: int
    left: int
    rows: int  # as encoded, which may reach over the edge
    columns: int


def read_samples(page: tifffile.TiffPage, file: BinaryIO, name: str) -> np.ndarray:
    """Returns the samples of a page.

    Args:
      page: the page, whose size has been checked.
      file: the file that holds it.
      name: the name by which error messages call it.

    Returns:
      An array [h, w, samples] of the page's type; samples of 9 to 15 bits are scaled to uint16, so that the largest
      one is 65535, and those below 8 bits to uint8.

    Raises:
      UserError: if the page is compressed in a way that only another package knows.
      ValueError: if the page is damaged.
    """
    if page.compression not in _NONE + _DEFLATE + _LIBTIFF:
        return _by_tifffile(page, name)
    planes, samples = (page.samplesperpixel, 1) if page.planarconfig == 2 else (1, page.samplesperpixel)
    bits, dtype = page.bitspersample, _dtype(page)
    out = np.zeros((planes, page.imagelength, page.imagewidth, samples), dtype.newbyteorder("="))
    for block in _blocks(page, planes):
        line = -(-block.columns * samples * bits // 8)
        data = _raw(page, file, block.number)
        if data is None:
            continue
        data = _decompress(data, int(page.compression), (block.rows, line))
        if len(data) < block.rows * line:
            raise ValueError(f"strip or tile {block.number} is truncated")
        rows = np.frombuffer(data, np.uint8, block.rows * line).reshape(block.rows, line)
        values = _numbers(rows, page, dtype, (block.columns, samples))
        height, width = page.imagelength - block.top, page.imagewidth - block.left
        place = out[block.plane, block.top : block.top + block.rows, block.left : block.left + block.columns]
        place[...] = values[:height, :width]
    return np.moveaxis(out[..., 0], 0, -1) if planes > 1 else out[0]


def _dtype(page: tifffile.TiffPage) -> np.dtype:
    """Returns the type in which the page's samples are held, in the byte order of the file."""
    kind = {1: "u", 2: "i", 3: "f"}.get(int(page.sampleformat), "u")
    bits = page.bitspersample
    if kind == "u" and 0 < bits < 16:
        return np.dtype(np.uint8 if bits <= 8 else np.uint16)
    if bits not in (8, 16, 32, 64) or (kind, bits) == ("f", 8):
        raise ValueError(f"{bits} bits per sample in the format {int(page.sampleformat)} are not read")
    return np.dtype(f"{page.parent.byteorder}{kind}{bits // 8}")


def _blocks(page: tifffile.TiffPage, planes: int) -> Iterator[Block]:
    """Yields the strips or tiles of a page in their order, sections 7 and 15."""
    height, width = page.imagelength, page.imagewidth
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    if not page.is_tiled:
        rows = min(rows, height)
    if rows < 1 or columns < 1 or rows * columns > 4 * max(height * width, 1 << 20):
        raise ValueError(f"its strips or tiles have {rows} x {columns} pixels")
    places = itertools.product(range(planes), range(0, height, rows), range(0, width, columns))
    for index, (plane, top, left) in enumerate(places):
        yield Block(index, plane, top, left, rows if page.is_tiled else min(rows, height - top), columns)


def _raw(page: tifffile.TiffPage, file: BinaryIO, index: int) -> bytes | None:
    """Reads the bytes of a strip or tile; None if the file leaves it out, which means zeros."""
    offset, count = page.dataoffsets[index], page.databytecounts[index]
    if not offset or not count:
        return None
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise ValueError("image file is truncated")
    return _REVERSED[np.frombuffer(data, np.uint8)].tobytes() if int(page.fillorder) == 2 else data


def _decompress(data: bytes, compression: int, shape: tuple[int, int]) -> bytes:
    """Decompresses at most about as many bytes as `shape`, (rows, bytes of a row), needs."""
    rows, line = shape
    if rows * line > _MOST.get(compression, 1 << 30) * (len(data) + 1):  # before memory for it is taken
        raise ValueError("image file is truncated")
    if compression in _NONE:
        return data
    if compression in _DEFLATE:
        return zlib.decompressobj().decompress(data, rows * line)
    entries = [(256, 4, line), (257, 4, rows), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, 122)]
    entries += [(277, 3, 1), (278, 4, rows), (279, 4, len(data))]  # bytes as grey pixels, in one strip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, value in entries:
        head += struct.pack("<HHII", tag, kind, 1, value)
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the page's size has been checked
    try:
        with Image.open(io.BytesIO(head + bytes(4) + data), formats=["TIFF"]) as image:
            return image.tobytes()
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _numbers(rows: np.ndarray, page: tifffile.TiffPage, dtype: np.dtype, shape: tuple[int, int]) -> np.ndarray:
    """Returns the numbers [n, *shape] that rows of bytes [n, line] hold, after undoing the predictor (section 14)."""
    bits, predictor = page.bitspersample, int(page.predictor)
    if predictor == 3:  # bytes of equal rank stand together, the highest first, and each is a difference
        samples, size = shape[1], dtype.itemsize
        sums = np.cumsum(rows.reshape(len(rows), -1, samples), 1, dtype=np.uint8).reshape(len(rows), size, -1)
        return np.ascontiguousarray(np.moveaxis(sums, 1, -1)).view(f">{dtype.kind}{size}").reshape(-1, *shape)
    if bits % 8 or bits < 8:
        values = _unpacked(rows, bits, shape)
    else:
        values = rows.view(dtype).reshape(-1, *shape)
    if predictor == 2:
        whole = np.dtype(f"u{dtype.itemsize}").newbyteorder(dtype.byteorder)
        values = np.cumsum(values.view(whole), 1, dtype=whole.newbyteorder("="))
        if bits % 8:
            values &= (1 << bits) - 1
        values = values.view(dtype.newbyteorder("="))
    if bits % 8 or bits < 8:
        peak = (1 << bits) - 1
        values = np.rint(values * (np.iinfo(dtype).max / peak)).astype(dtype)
    return values


def _unpacked(rows: np.ndarray, bits: int, shape: tuple[int, int]) -> np.ndarray:
    """Returns numbers of `bits` bits each, most significant first, as uint8 or uint16 [n, *shape]."""
    number = shape[0] * shape[1]
    digits = np.unpackbits(rows, axis=1)[:, : number * bits].reshape(len(rows), number, bits)
    weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    values = (digits * weights).sum(-1, dtype=np.uint16)
    return values.astype(np.uint8 if bits <= 8 else np.uint16).reshape(-1, *shape)


def _by_tifffile(page: tifffile.TiffPage, name: str) -> np.ndarray:
    """Decodes a page by tifffile, which uses the package imagecodecs for most ways of compression."""
    try:
        values = page.asarray(squeeze=False)  # planes, depth, h, w, samples
    except ValueError as e:
        if "imagecodecs" not in str(e):
            raise
        kind = getattr(page.compression, "name", page.compression)
        raise UserError(f"{name} is compressed by {kind}; install the package imagecodecs to read it.") from e
    values = np.asarray(values)[:, 0]
    return np.moveaxis(values[..., 0], 0, -1) if len(values) > 1 else values[0]
