"""Image files that no library here writes: PNG chunks, ICC profiles, TIFF pages of any depth and layout."""

import io
import itertools
import struct
import zlib

import numpy as np
from PIL import Image

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, colour: int, depth: int = 16, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """Encodes [h, w, c] with filters that change from row to row."""
    height, width, _ = values.shape
    parts = [values[y::dy, x::dx] for y, x, dy, dx in PASSES] if interlaced else [values]
    data = b"".join(filtered(part, depth) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def filtered(values: np.ndarray, depth: int) -> bytes:
    height, width, channels = values.shape
    if depth < 8:
        bits = (values.reshape(height, -1, 1) >> np.arange(depth)[::-1] & 1).reshape(height, -1).astype(np.uint8)
        return b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    step = channels * depth // 8
    rows = values.astype(f">u{depth // 8}").reshape(height, -1).view(np.uint8).astype(int)
    padded = np.zeros((height + 1, rows.shape[1] + step), int)
    padded[1:, step:] = rows
    a, b, c = padded[1:, :-step], padded[:-1, step:], padded[:-1, :-step]
    distances = np.stack([abs(b - c), abs(a - c), abs(a + b - 2 * c)])
    paeth = np.choose(distances.argmin(0), [a, b, c])
    predictions = [0 * a, a, b, (a + b) // 2, paeth]
    kinds = [y % 5 for y in range(height)]
    return b"".join(bytes([k, *((rows[y] - predictions[k][y]) % 256)]) for y, k in enumerate(kinds))


def profile(curves, matrix=None, pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile of curves (a gamma or 1024 values each) and, for three, a matrix to XYZ relative to D50."""
    tags = {}
    for name, curve in zip((b"kTRC",) if matrix is None else (b"rTRC", b"gTRC", b"bTRC"), curves, strict=True):
        if np.ndim(curve):
            table = np.rint(65535 * np.asarray(curve)).astype(">u2").tobytes()
            tags[name] = b"curv" + bytes(4) + struct.pack(">I", len(curve)) + table
        else:
            tags[name] = b"para" + bytes(4) + struct.pack(">HHi", 0, 0, round(curve * 65536))
    for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ") if matrix is not None else ()):
        tags[name] = b"XYZ " + bytes(4) + struct.pack(">3i", *np.rint(65536 * matrix[:, i]).astype(int))
    tags[b"wtpt"] = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    place, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, place + len(data), len(content))
        data += content
    head = bytearray(128)
    head[8:12], head[12:16], head[36:40] = b"\4\0\0\0", b"mntr", b"acsp"
    head[16:20], head[20:24] = b"GRAY" if matrix is None else b"RGB ", pcs
    head[68:80] = struct.pack(">3i", 63190, 65536, 54061)
    head[:4] = struct.pack(">I", 128 + len(table) + len(data))
    return bytes(head) + table + data


# Adobe RGB (1998), relative to D50: its annex C.
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])


def tiff(rows: list[bytes], shape: tuple[int, int], entries: dict[int, tuple[str, list]], order: str = "<") -> bytes:
    """A TIFF file of given strips; entries are tag: (H, I or B, values)."""
    height, width = shape
    entries = {256: ("I", [width]), 257: ("I", [height]), 278: ("I", [-(-height // len(rows))])} | entries
    place, offsets = 8, []
    for row in rows:
        offsets.append(place)
        place += len(row) + len(row) % 2
    entries |= {273: ("I", offsets), 279: ("I", [len(row) for row in rows])}
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", place)
    out += b"".join(row + bytes(len(row) % 2) for row in rows)
    table, data, behind = struct.pack(order + "H", len(entries)), b"", place + 2 + 12 * len(entries) + 4
    for tag, (code, values) in sorted(entries.items()):
        kind = {"B": 7, "H": 3, "I": 4}[code]
        content = struct.pack(f"{order}{len(values)}{code}", *values)
        table += struct.pack(order + "HHI", tag, kind, len(values))
        if len(content) > 4:
            table += struct.pack(order + "I", behind + len(data))
            data += content + bytes(len(content) % 2)
        else:
            table += content.ljust(4, b"\0")
    return out + table + bytes(4) + data


def packed(values: np.ndarray, bits: int) -> bytes:
    """Packs whole numbers of a row into bits."""
    digits = [[int(one) >> i & 1 for i in range(bits)[::-1]] for one in values.reshape(-1)]
    return np.packbits(np.array(digits, np.uint8).reshape(-1)).tobytes()


def lzw(content: bytes) -> bytes:
    """Compresses by TIFF's LZW, as Pillow's libtiff does."""
    file = io.BytesIO()
    Image.frombytes("L", (len(content), 1), content).save(file, "TIFF", compression="tiff_lzw")
    with Image.open(file) as image:
        place, count = image.tag_v2[273][0], image.tag_v2[279][0]
    return file.getvalue()[place : place + count]


def cycle(height: int, width: int, channels: int, dtype) -> np.ndarray:
    """Values that use all bits of a type."""
    peak = np.iinfo(dtype).max
    values = np.random.default_rng(height * channels).integers(0, peak, (height, width, channels), dtype, endpoint=True)
    corners = itertools.cycle((0, peak))
    values[0, 0], values[-1, -1] = [next(corners) for _ in range(channels)], peak
    return values
