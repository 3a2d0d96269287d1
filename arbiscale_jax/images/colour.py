"""Converts pixels between sRGB and the colour space of an ICC profile, in the depth that they have."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from arbiscale_jax.images.icc import (
    CODES,
    SRGB_TO_XYZ,
    CurveProfile,
    curve_profile,
    linear_to_srgb,
    profile_of,
    space_of,
    srgb_to_linear,
)
from arbiscale_jax.images.picture import to_uint8, to_uint16

BAND = 1 << 19  # pixels that are converted at once
ROOTS = 1 << 18  # entries of an inverse curve: within a level of 16 bits
SAME = 0.75 / 255  # profiles that differ from sRGB by less are sRGB, so that rounding does not touch their pixels

Conversion = Callable[[np.ndarray], np.ndarray]


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray | None:
    """Converts colours from the space of a profile to sRGB.

    Profiles of curves and a matrix are applied in the depth of the pixels. Others go through ImageCms, which takes 8
    bits alone, so that 16-bit pixels are rounded to 8 bits and widened again.

    Args:
      pixels: uint8 or uint16 [h, w, c], without alpha: grey, RGB or CMYK.
      profile: the ICC profile.

    Returns:
      Pixels of the same dtype, grey for grey and RGB for others; None if the profile cannot be used for them.
    """
    channels = pixels.shape[2]
    if channels < 4 and (found := _curves(profile, channels)):
        return _apply(pixels, None if _is_srgb(profile, channels) else _to_srgb(found))
    if space_of(profile) != {1: "GRAY", 3: "RGB", 4: "CMYK"}[channels]:
        return None
    return _by_tables(pixels, profile)


def from_srgb(profile: bytes, channels: int) -> Conversion | None:
    """Returns a function that converts sRGB pixels to the space of a profile; None if there is no such function.

    The function takes uint8 or uint16 [n, w, c], where c is `channels` (1 for grey and 3 for RGB), and gives the same
    shape and dtype. Only profiles of curves and a matrix have one, and they must be for as many channels.
    """
    found = _curves(profile, channels)
    if found is None or space_of(profile) != {1: "GRAY", 3: "RGB"}[channels]:
        return None
    convert = None if _is_srgb(profile, channels) else _from_srgb(found)
    return lambda pixels: _apply(pixels, convert)


def from_gamma(pixels: np.ndarray, gamma: float) -> np.ndarray:
    """Converts colours that are the power `gamma` of linear light, uint8 or uint16, to sRGB.

    A gamma within 5% of 1/2.2 is left alone, as libpng does, since writers of sRGB state it.
    """
    if not 0.01 < gamma < 10 or abs(gamma * 2.2 - 1) < 0.05:
        return pixels
    peak = np.iinfo(pixels.dtype).max
    values = np.linspace(0, 1, peak + 1)
    return np.rint(peak * linear_to_srgb(values ** (1 / gamma))).astype(pixels.dtype)[pixels]


def from_lab(lab: np.ndarray) -> np.ndarray:
    """Converts CIE L*a*b* relative to D50, float [h, w, 3] with L* in [0, 100], to sRGB, uint16 [h, w, 3]."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * SRGB_TO_XYZ.sum(1)
    light = np.clip(xyz @ np.linalg.inv(SRGB_TO_XYZ).T, 0, 1)
    return np.rint(65535 * linear_to_srgb(light)).astype(np.uint16)


@lru_cache(maxsize=16)
def _curves(profile: bytes, channels: int) -> CurveProfile | None:
    """Returns the profile for `channels`, 1 or 3; that of RGB also explains grey, as the light of equal channels."""
    found = curve_profile(profile)
    if found is None or (found.space == "GRAY" and channels == 3):
        return None
    if found.matrix is not None and channels == 1:
        weights = found.matrix[1] / found.matrix[1].sum()
        return CurveProfile("GRAY", (weights @ found.curves).astype(np.float32)[None], None)
    return found


@lru_cache(maxsize=16)
def _is_srgb(profile: bytes, channels: int) -> bool:
    """Tells whether sRGB colours are within `SAME` of what the profile makes of them."""
    found = _curves(profile, channels)
    assert found is not None
    steps = np.linspace(0, 65535, 18).astype(np.uint16)
    grid = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), -1).reshape(-1, 1, channels)
    off = _to_srgb(found)(grid).astype(int) - grid
    return bool(np.abs(off).max() <= 65535 * SAME)


def _to_srgb(profile: CurveProfile) -> Conversion:
    matrix = None if profile.matrix is None else np.linalg.solve(SRGB_TO_XYZ, profile.matrix)

    def convert(pixels: np.ndarray) -> np.ndarray:
        codes = to_uint16(pixels)
        light = np.stack([curve[codes[..., i]] for i, curve in enumerate(profile.curves)], -1)
        if matrix is not None:
            light = np.clip(light @ matrix.T.astype(np.float32), 0, 1)
        peak = np.iinfo(pixels.dtype).max
        return np.rint(peak * linear_to_srgb(light)).astype(pixels.dtype)

    return convert


def _from_srgb(profile: CurveProfile) -> Conversion:
    matrix = None if profile.matrix is None else np.linalg.solve(profile.matrix, SRGB_TO_XYZ)
    linear = srgb_to_linear(CODES).astype(np.float32)
    roots = np.linspace(0, 1, ROOTS)  # of light, since curves are steep at black
    inverse = [np.interp(roots**2, curve, CODES).astype(np.float32) for curve in profile.curves]

    def convert(pixels: np.ndarray) -> np.ndarray:
        light = linear[to_uint16(pixels)]
        if matrix is not None:
            light = np.clip(light @ matrix.T.astype(np.float32), 0, 1)
        places = np.rint(np.sqrt(light) * np.float32(ROOTS - 1)).astype(np.int32)
        values = np.stack([table[places[..., i]] for i, table in enumerate(inverse)], -1)
        return np.rint(np.iinfo(pixels.dtype).max * values).astype(pixels.dtype)

    return convert


def _apply(pixels: np.ndarray, convert: Conversion | None) -> np.ndarray:
    """Applies a conversion to bands of rows, or nothing."""
    if convert is None:
        return pixels
    out, rows = np.empty_like(pixels), max(1, BAND // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        out[top : top + rows] = convert(pixels[top : top + rows])
    return out


def _by_tables(pixels: np.ndarray, profile: bytes) -> np.ndarray | None:
    """Converts by ImageCms, in 8 bits."""
    grey, mode = pixels.shape[2] == 1, {1: "L", 3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    narrow = np.ascontiguousarray(to_uint8(pixels))
    image = Image.fromarray(narrow[..., 0]) if grey else Image.frombytes(mode, narrow.shape[1::-1], narrow.tobytes())
    try:
        source, target = profile_of(profile), ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if found is None:
        return None
    out = np.asarray(found)[..., 1:2] if grey else np.asarray(found)
    return to_uint16(out) if pixels.dtype == np.uint16 else out
