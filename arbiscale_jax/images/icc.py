"""Reads ICC profiles that consist of curves and, for RGB, a matrix; ICC.1:2022, clauses 7.2, 8.3, 8.4 and 10."""

import io
import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import ImageCms

LARGEST = 16 << 20  # bytes; a profile that is longer is ignored
CODES = np.linspace(0, 1, 65536)  # the values at which curves are held
# sRGB's linear RGB to XYZ relative to D50, as its profiles state it.
SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)


class CurveProfile(NamedTuple):
    """Holds a profile of curves: a value v of channel i means the linear light curves[i](v)."""

    space: str  # "RGB" or "GRAY"
    curves: np.ndarray  # float32 [1 or 3, 65536]: linear light in [0, 1] at CODES, never falling
    matrix: np.ndarray | None  # [3, 3], from linear RGB to XYZ relative to D50; None for grey


def space_of(profile: bytes) -> str | None:
    """Returns the colour space whose values a profile explains, such as "RGB", "GRAY", "CMYK"; None if it is none."""
    if not 132 <= len(profile) <= LARGEST or profile[36:40] != b"acsp":
        return None
    return profile[16:20].decode("latin-1").strip()


@lru_cache(maxsize=8)
def curve_profile(profile: bytes) -> CurveProfile | None:
    """Reads a profile; returns None if it has tables of several dimensions, or is damaged."""
    try:
        return _read(profile)
    except (ValueError, IndexError, struct.error, OverflowError, FloatingPointError):
        return None


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """Returns a profile of sRGB, whose bytes do not depend on the day on which it is made."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    content[24:36] = struct.pack(">6H", 2020, 1, 1, 0, 0, 0)  # the date
    content[84:100] = bytes(16)  # the checksum, which 0 leaves out
    return bytes(content)


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Returns the linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Returns the sRGB values of linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def _read(profile: bytes) -> CurveProfile | None:
    space = space_of(profile)
    tags = _tags(profile)
    if space not in ("RGB", "GRAY") or tags.keys() & {b"A2B0", b"A2B1", b"D2B0", b"D2B1"}:
        return None
    in_lab = profile[20:24] == b"Lab "
    if space == "GRAY":
        curve = _curve(tags[b"kTRC"]) if b"kTRC" in tags else None
        if curve is None:
            return None
        if in_lab:  # the curve gives L*
            curve = np.where(curve > 0.08, ((100 * curve + 16) / 116) ** 3, 100 * curve * 27 / 24389)
        return CurveProfile(space, _rising(curve)[None], None)
    names = [b"rTRC", b"gTRC", b"bTRC", b"rXYZ", b"gXYZ", b"bXYZ"]
    if in_lab or not all(name in tags for name in names):
        return None
    curves = np.stack([_rising(_curve(tags[name])) for name in names[:3]])
    matrix = np.array([struct.unpack(">3i", tags[name][8:20]) for name in names[3:]]).T / 65536
    if not abs(np.linalg.det(matrix)) > 1e-4:
        return None
    return CurveProfile(space, curves, matrix)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Returns the contents of the tags of a profile."""
    (count,) = struct.unpack_from(">I", profile, 128)
    found = {}
    for i in range(min(count, 200)):
        name, start, length = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        found[name] = profile[start : start + length]
    return found


def _curve(tag: bytes) -> np.ndarray:
    """Returns the values at CODES of a tag of the type curv or para."""
    kind, number = tag[:4], struct.unpack(">I", tag[8:12])[0]
    if kind == b"curv":
        if number == 0:
            return CODES
        if number == 1:
            return CODES ** (struct.unpack(">H", tag[12:14])[0] / 256)
        table = np.frombuffer(tag, ">u2", number, 12) / 65535
        return np.interp(CODES, np.linspace(0, 1, number), table)
    if kind != b"para":
        raise ValueError(f"A curve of the type {kind!r} is unknown.")
    form = number >> 16
    g, a, b, c, d, e, f = (
        np.array(struct.unpack_from(f">{(n := (1, 3, 4, 5, 7)[form])}i", tag, 12) + (0,) * (7 - n)) / 65536
    )
    if form == 0:
        return CODES**g
    if form in (1, 2):
        d, e, f, c = -b / a, (c if form == 2 else 0), (c if form == 2 else 0), 0
    power = np.maximum(a * CODES + b, 0) ** g
    return np.where(CODES >= d, power + e, c * CODES + f)


def _rising(curve: np.ndarray) -> np.ndarray:
    """Returns a curve clipped to [0, 1] that never falls, as float32."""
    if not np.isfinite(curve).all() or curve.max() <= curve.min():
        raise ValueError("A curve is constant or not finite.")
    return np.maximum.accumulate(np.clip(curve, 0, 1)).astype(np.float32)


def profile_of(content: bytes) -> ImageCms.ImageCmsProfile:
    """Opens a profile for ImageCms, which also knows tables of several dimensions.

    Raises:
      OSError: if it is damaged.
    """
    return ImageCms.ImageCmsProfile(io.BytesIO(content))
