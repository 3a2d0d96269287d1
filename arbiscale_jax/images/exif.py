"""Reads the orientation of EXIF data and resets it, without touching its other bytes; EXIF 2.3, clause 4.6."""

import re
import struct

import numpy as np

ORIENTATION = 0x0112
LONGEST = 65527  # bytes, in the one segment of a JPEG file, after its prefix
_PREFIX = re.compile(rb"^(Exif\0\0){1,2}")


def upright_exif(content: bytes | None) -> tuple[bytes | None, int]:
    r"""Takes the prefix off EXIF data, reads the orientation and resets it to 1.

    Args:
      content: the data, with the prefix "Exif\0\0" or without.

    Returns:
      (The data, or None if they are malformed; the orientation from 1 to 8, or 1).
    """
    content = _PREFIX.sub(b"", content or b"")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    try:
        if order is None:
            return None, 1
        (start,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, start)
        entries = [struct.unpack_from(order + "HHI", content, start + 2 + 12 * i) for i in range(count)]
        found, orientation = bytearray(content), 1
        for i, (tag, kind, number) in enumerate(entries):
            place = start + 2 + 12 * i + 8
            if tag == ORIENTATION and number == 1 and kind in (3, 4):
                form = order + ("H" if kind == 3 else "I")
                (orientation,) = struct.unpack_from(form, content, place)
                struct.pack_into(form, found, place, 1)
        return bytes(found), orientation if orientation in range(1, 9) else 1
    except struct.error:
        return None, 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors pixels [h, w, c] as an orientation from 1 to 8 asks."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
