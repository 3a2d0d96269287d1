"""Encodes images as PNG or TIFF files from bands of rows; of what it has written it keeps a few bytes a strip."""

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from arbiscale_jax.images.embedding import add_exif, png_chunks, tiff_options
from arbiscale_jax.images.picture import Metadata
from arbiscale_jax.images.png import SIGNATURE, chunk

PNG_BAND_BYTES = 1 << 17  # rows that are filtered at once; the arrays for it stay in the processor's cache
PNG_CHUNK_BYTES = 1 << 18  # the longest IDAT chunk
TIFF_STRIP_BYTES = 1 << 20  # rows that are compressed at once
TIFF_CLASSIC_BYTES = 4_000_000_000  # more pixel bytes make a BigTIFF; deflate adds at most 0.1% to noise


def _append(part: Path, content: bytes | bytearray) -> None:
    """Appends to a file and closes it, so that no handle is open between two calls and every error shows here."""
    with part.open("ab") as file:
        file.write(content)


def _deflater():
    """Returns a compressor that looks for runs only.

    A photograph enlarged 4 times, with the Paeth filter, became as small as by level 6 and its search (3.94 and 3.88
    times smaller), at about 90 MB/s in place of 12 on one CPU core.
    """
    return zlib.compressobj(level=1, memLevel=9, strategy=zlib.Z_RLE)


class Png:
    """Encodes bands of rows as PNG: every row has the Paeth filter, and all of them are one deflate stream."""

    name, longest_side = "PNG", 2**31 - 1

    def __init__(self, part: Path, shape: tuple[int, int, int], dtype: np.dtype, metadata: Metadata):
        height, width, channels = shape
        self._part, self._pixel, row = part, channels * dtype.itemsize, width * channels * dtype.itemsize
        self.band_rows = min(height, max(1, PNG_BAND_BYTES // row))
        self._above = np.zeros(self._pixel + row, np.uint8)  # the last row so far, after one pixel of zeros
        self._deflater, self._pending = _deflater(), bytearray()
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        header = struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, colour, 0, 0, 0)
        part.write_bytes(SIGNATURE + chunk(b"IHDR", header) + png_chunks(metadata))

    def add(self, band: np.ndarray) -> None:
        """Appends a band [n, w, c]."""
        values = band.astype(band.dtype.newbyteorder(">"), copy=False).reshape(len(band), -1).view(np.uint8)
        padded = np.zeros((len(band) + 1, len(self._above)), np.uint8)  # one row above, one pixel to the left
        padded[0], padded[1:, self._pixel :] = self._above, values
        self._above = padded[-1].copy()
        filtered = np.empty((len(band), values.shape[1] + 1), np.uint8)
        filtered[:, 0] = 4  # Paeth
        left, up, corner = padded[1:, : -self._pixel], padded[:-1, self._pixel :], padded[:-1, : -self._pixel]
        np.subtract(values, _paeth(left, up, corner), out=filtered[:, 1:])
        self._pending += self._deflater.compress(filtered.data)
        self._flush(PNG_CHUNK_BYTES)

    def end(self) -> None:
        """Completes the file."""
        self._pending += self._deflater.flush()
        self._flush(1)
        _append(self._part, chunk(b"IEND", b""))

    def _flush(self, least: int) -> None:
        """Appends what is pending, in chunks, until fewer than `least` bytes are."""
        while len(self._pending) >= least:
            _append(self._part, chunk(b"IDAT", self._pending[:PNG_CHUNK_BYTES]))
            del self._pending[:PNG_CHUNK_BYTES]


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Returns that neighbour of each byte which is nearest to left + up - corner; on a tie the first in this order.

    Everything stays in bytes, for speed: if `up` and `left` lie on one side of the corner, its distance is the sum of
    theirs, so that it is never the nearest and 255 may stand for it; otherwise its distance is their difference. Masks
    select in place of `np.where`, which is slower.
    """
    by_left = np.maximum(up, corner) - np.minimum(up, corner)  # the distance of `left`
    by_up = np.maximum(left, corner) - np.minimum(left, corner)
    one_side = ((up < corner) == (left < corner)).view(np.uint8)
    by_corner = (np.maximum(by_left, by_up) - np.minimum(by_left, by_up)) | -one_side
    nearest = corner ^ ((corner ^ up) & -(by_up <= by_corner).view(np.uint8))
    return nearest ^ ((nearest ^ left) & -((by_left <= by_up) & (by_left <= by_corner)).view(np.uint8))


def page_options(channels: int) -> dict[str, Any]:
    """Returns the arguments of tifffile's writers that say what the samples of a page are."""
    return dict(
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=None if channels % 2 else ["unassalpha"],
        compression="zlib",
        predictor=True,
        metadata=None,
    )


class Tiff:
    """Encodes bands of rows as strips of a TIFF file, each one deflated after the differences along its rows.

    tifffile pulls an image from an iterator, while rows are pushed here. So it first writes the header of an image of
    empty strips, then the strips are appended one by one, and at the end it is told where they lie.
    """

    name, longest_side = "TIFF", 2**32 - 1

    def __init__(self, part: Path, shape: tuple[int, int, int], dtype: np.dtype, metadata: Metadata):
        height, width, channels = shape
        row = width * channels * dtype.itemsize
        self._part, self._counts, self._metadata = part, [], metadata
        self.band_rows = min(height, max(1, TIFF_STRIP_BYTES // row))
        bigtiff = height * row > TIFF_CLASSIC_BYTES
        self._classic = not bigtiff
        tifffile.imwrite(
            part,
            itertools.repeat(b"", -(-height // self.band_rows)),
            shape=shape if channels > 1 else shape[:2],
            dtype=dtype,
            rowsperstrip=self.band_rows,
            bigtiff=bigtiff,
            byteorder="<",
            ome=False,
            **page_options(channels),
            **tiff_options(metadata),
        )
        self._start = part.stat().st_size

    def add(self, band: np.ndarray) -> None:
        """Appends a band [n, w, c] as one strip."""
        differences = band.astype(band.dtype.newbyteorder("<"))
        differences[:, 1:] -= band[:, :-1]
        deflater = _deflater()
        strip = deflater.compress(differences.data) + deflater.flush()
        _append(self._part, strip)
        self._counts.append(len(strip))

    def end(self) -> None:
        """Completes the file."""
        offsets = itertools.accumulate(self._counts[:-1], initial=self._start)
        with tifffile.TiffFile(self._part, mode="r+") as file:
            tags = file.pages.first.tags
            tags["StripOffsets"].overwrite(list(offsets))
            tags["StripByteCounts"].overwrite(self._counts)
        if self._classic:
            with self._part.open("r+b") as file:
                add_exif(file, self._metadata)
