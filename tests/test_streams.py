"""Images written row by row: what readers find in them, what unfinished ones leave, and how much memory they take."""

import io
import itertools
import resource
import struct
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from image_files import pixels
from waiting import run

from arbiscale_jax import UserError
from arbiscale_jax.images import row_formats
from arbiscale_jax.images.streams import open_stream
from arbiscale_jax.runtime.whole_files import temporary

MODES = list(itertools.product((1, 2, 3, 4), (np.uint8, np.uint16)))
PIECE = np.zeros((2, 5, 3), np.uint8)


def image(height: int, width: int, channels: int, dtype) -> np.ndarray:
    """A part of a photo in the upper half, so that all of a filter's neighbours are chosen; noise in the lower half."""
    peak = np.iinfo(dtype).max
    out = np.random.default_rng(height + channels).integers(0, peak, (height, width, channels), dtype, endpoint=True)
    photo = skimage.data.astronaut()[: height // 2, 200 : 200 + width, np.arange(channels) % 3]
    out[: height // 2] = photo.astype(dtype) * (peak // 255) + (peak > 255) * (out[: height // 2] & 63)
    return out


def write(path: Path, content: np.ndarray, portions=(1, 5, 2, 1000)) -> None:
    """Writes an image in uneven portions."""
    with open_stream(path, content.shape[:2], content.shape[2], content.dtype) as stream:
        for n in portions:
            if len(content):
                stream.write(content[:n])
            content = content[n:]


def chunks(path: Path) -> list[tuple[bytes, bytes]]:
    """Returns the (kind, content) of the chunks of a PNG file, whose checksums are tested."""
    file, found = io.BytesIO(path.read_bytes()), []
    assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    while head := file.read(8):
        length, kind = struct.unpack(">I4s", head)
        found.append((kind, file.read(length)))
        assert file.read(4) == struct.pack(">I", zlib.crc32(kind + found[-1][1]))
    return found


def decoded(path: Path) -> np.ndarray:
    """Decodes a PNG file of Paeth rows byte by byte, as its specification says."""
    (first, header), *data, last = chunks(path)
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", header)
    assert first == b"IHDR" and last == (b"IEND", b"") and rest == [0, 0, 0] and {kind for kind, _ in data} == {b"IDAT"}
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[colour]
    pixel = channels * depth // 8
    lines = np.frombuffer(zlib.decompress(b"".join(content for _, content in data)), np.uint8).reshape(height, -1)
    out = np.zeros((height + 1, pixel * (width + 1)), int)
    for y, x in itertools.product(range(height), range(pixel * width)):
        assert lines[y, 0] == 4
        a, b, c = (int(value) for value in (out[y + 1, x], out[y, x + pixel], out[y, x]))
        nearest = min((a, b, c), key=lambda value: abs(a + b - c - value))  # of equal ones the first
        out[y + 1, x + pixel] = (int(lines[y, x + 1]) + nearest) % 256
    values = out[1:, pixel:].astype(np.uint8).view(f">u{depth // 8}")
    return values.reshape(height, width, channels).astype(f"u{depth // 8}")


@pytest.fixture
def small_bands(monkeypatch):
    """Makes small images pass through several bands, chunks and strips."""
    for name in ("PNG_BAND_BYTES", "PNG_CHUNK_BYTES", "TIFF_STRIP_BYTES"):
        monkeypatch.setattr(row_formats, name, 300)


# --- what readers find ---


@pytest.mark.parametrize("channels, dtype", MODES)
def test_a_png_holds_the_rows(channels, dtype, tmp_path, small_bands):
    path, content = tmp_path / "a.png", image(23, 17, channels, dtype)
    write(path, content)
    assert decoded(path).dtype == dtype and np.array_equal(decoded(path), content)
    if dtype == np.uint8 or channels == 1:
        assert np.array_equal(pixels(path), content.squeeze(2) if channels == 1 else content)
    sizes = [len(data) for kind, data in chunks(path) if kind == b"IDAT"]
    assert len(sizes) > 1 and set(sizes[:-1]) == {300} and sizes[-1] <= 300


@pytest.mark.parametrize("channels, dtype", MODES)
def test_a_tiff_holds_the_rows(channels, dtype, tmp_path, small_bands):
    path, content = tmp_path / "a.ome.TIF", image(23, 17, channels, dtype)  # the name asks tifffile for metadata
    write(path, content)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        alpha = () if channels % 2 else (tifffile.EXTRASAMPLE.UNASSALPHA,)
        assert page.extrasamples == alpha and page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.photometric == tifffile.PHOTOMETRIC["RGB" if channels > 2 else "MINISBLACK"] and page.predictor == 2
        assert not file.is_bigtiff and "ImageDescription" not in page.tags and len(page.dataoffsets) > 1
        assert page.dtype == dtype and np.array_equal(page.asarray().reshape(content.shape), content)
    if dtype == np.uint8 or channels == 1:
        assert np.array_equal(pixels(path), content.squeeze(2) if channels == 1 else content)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_whole_bands_and_single_lines(suffix, tmp_path):
    path = tmp_path / "deep" / f"a{suffix}"
    for size in ((1, 1), (1, 9), (9, 1), (400, 300)):
        for content in (image(*size, 3, np.uint8), np.zeros((*size, 1), np.uint16)):
            write(path, content)
            assert np.array_equal(pixels(path).reshape(content.shape), content)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_large_tiff_is_a_bigtiff(tmp_path, monkeypatch, small_bands):
    monkeypatch.setattr(row_formats, "TIFF_CLASSIC_BYTES", 22 * 17 * 3)
    for height in (22, 23):
        content = image(height, 17, 3, np.uint8)
        write(tmp_path / "a.tif", content)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.is_bigtiff == (height == 23) and np.array_equal(file.asarray(), content)


# --- what is left of unfinished files ---


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("there", [None, b"an older file"])
def test_an_unfinished_file_never_has_the_name(name, there, tmp_path):
    path = tmp_path / name

    def check() -> None:
        assert [one.read_bytes() for one in tmp_path.iterdir()] == ([there] if there else [])

    if there:
        path.write_bytes(there)
    for error in (KeyboardInterrupt, FileNotFoundError):  # the block's own errors stay what they are
        with pytest.raises(error, match="mine"), open_stream(path, (4, 5)) as stream:
            stream.write(PIECE)
            raise error("mine")
        check()
    with pytest.raises(ValueError, match=f"{name} has 4 rows, but only 2 were written"):
        with open_stream(path, (4, 5)) as stream:
            stream.write(PIECE)
    check()
    with pytest.raises(ValueError, match=f"{name} has 4 rows, but 6 were written"):
        with open_stream(path, (4, 5)) as stream:
            for _ in range(3):
                stream.write(PIECE)
    check()


@contextmanager
def no_file_longer_than(num_bytes: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_full_disk_is_one_sentence(name, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 900, 3), np.uint8)
    with no_file_longer_than(1_000_000):
        with pytest.raises(UserError, match=f"{name} cannot be written .*; choose another --output or make room"):
            write(tmp_path / name, noise)
        assert list(tmp_path.iterdir()) == []
        with (
            pytest.raises(UserError, match="an error has left it incomplete"),
            open_stream(tmp_path / name, (1000, 900)) as stream,
        ):
            with pytest.raises(UserError, match="cannot be written"):
                stream.write(noise)  # the block goes on as if nothing had happened
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_not_continued(tmp_path):
    for name in ("a.png", "a.tif"):
        temporary(tmp_path / name).write_bytes(b"left" * 1000)
        content = image(5, 4, 3, np.uint8)
        write(tmp_path / name, content)
        assert np.array_equal(pixels(tmp_path / name), content)


# --- mistakes ---


@pytest.mark.parametrize(
    "rows, given",
    [
        (PIECE[:, :4], r"\[2, 4, 3\] of uint8"),
        (PIECE[:, :, :1], r"\[2, 5, 1\] of uint8"),
        (PIECE[0], r"\[5, 3\] of uint8"),
        (PIECE[:0], r"\[0, 5, 3\] of uint8"),
        (PIECE.astype(np.uint16), r"\[2, 5, 3\] of uint16"),
    ],
)
def test_rows_of_another_kind(rows, given, tmp_path):
    with open_stream(tmp_path / "a.png", (2, 5)) as stream:
        with pytest.raises(ValueError, match=rf"a.png takes rows \[n, 5, 3\] of uint8, not {given}\.$"):
            stream.write(rows)
        stream.write(PIECE)  # nothing of the wrong ones was taken
    with pytest.raises(UserError, match="a.png is closed"):
        stream.finish()
    assert np.array_equal(pixels(tmp_path / "a.png"), PIECE)


def test_files_that_cannot_be(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for name, size, channels, dtype, error, match in (
        ("a.jpg", (2, 5), 3, np.uint8, UserError, "give a name that ends in .png, .tif or .tiff"),
        ("folder.png", (2, 5), 3, np.uint8, UserError, "folder.png is a folder"),
        ("file/a.png", (2, 5), 3, np.uint8, UserError, "file/a.png cannot be written"),
        ("a.png", (2, 2**31), 3, np.uint8, UserError, "2 x 2147483648 pixels, since PNG allows 2147483647 a side"),
        ("a.tif", (2**32, 5), 3, np.uint8, UserError, "4294967296 x 5 pixels, since TIFF allows 4294967295 a side"),
        ("a.png", (0, 5), 3, np.uint8, ValueError, "sides are at least 1"),
        ("a.png", (2, 5), 5, np.uint8, ValueError, "channels 1 to 4"),
        ("a.png", (2, 5), 3, np.float32, ValueError, "of float32: .* values uint8 or uint16"),
    ):
        with pytest.raises(error, match=match), open_stream(tmp_path / name, size, channels, dtype):
            raise AssertionError(name)
    assert {one.name for one in tmp_path.iterdir()} == {"folder.png", "file"}


# --- memory ---

PEAK = """
import sys
import numpy as np
from arbiscale_jax.images.streams import open_stream
from arbiscale_jax.runtime.whole_files import temporary

def peak():  # in KiB; getrusage's would begin with that of the process that started this one
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

x = np.arange(3000)[:, None] * (1, 2, 3) // 16
before = peak()
for path in sys.argv[1:]:
    with open_stream(path, (20000, 3000)) as stream:
        for y in range(0, 20000, 100):
            stream.write((x + np.arange(y, y + 100)[:, None, None] // 8).astype(np.uint8))
print(peak() - before)
"""


def test_memory_stays_small(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "a.tif")]
    out = run([sys.executable, "-c", PEAK, *paths])
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) < 60 * 1024  # the image has 180 MB
    last = np.arange(3000)[:, None] * (1, 2, 3) // 16 + 19999 // 8
    whole = pixels(paths[0])
    assert whole.shape == (20000, 3000, 3) and np.array_equal(whole[-1], last.astype(np.uint8))
    assert np.array_equal(tifffile.imread(paths[1]), whole)
