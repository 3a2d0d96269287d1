"""Finds white in pictures whose files do not say where it is, and scales their values to uint8 or uint16."""

import numpy as np

SHARE = 99  # percent of the values other than 0 that white is judged by, so that no outlier decides
OVERSHOOT = 2.0  # sharpening and resampling leave values beyond white; so far beyond, most are taken to be overshoot


def to_levels(values: np.ndarray, white: float | None = None, *, inverted: bool = False) -> np.ndarray:
    """Scales numbers of any type to uint8 or uint16.

    uint8 and uint16 keep their values. Other types become uint16, where white is 65535, values outside the range are
    clipped, and NaN is 0.

    Args:
      values: the numbers, of any shape.
      white: the value of white; by default that of the type for uint8 and uint16, and `find_white` for others.
      inverted: whether 0 is white, and white is black.

    Returns:
      An array of the same shape.
    """
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    whole = values.dtype in (np.uint8, np.uint16)
    if whole and white in (None, np.iinfo(values.dtype).max):
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return np.iinfo(values.dtype).max - values if inverted else values
    white = find_white(values) if white is None else white
    out = np.empty(values.shape, np.uint16)
    for row, line in zip(out, values, strict=True):  # line by line, since float64 takes four times the memory
        share = np.nan_to_num(np.asarray(line, np.float64) / white, nan=0.0, posinf=1.0, neginf=0.0)
        share = 1 - share if inverted else share
        row[...] = np.rint(np.clip(share, 0, 1) * 65535)
    return out


def find_white(values: np.ndarray) -> float:
    """Returns the value of white: 1, 255, 65535 or the largest number of an integer type.

    It is judged by the peak, which 99% of the finite values above 0 do not exceed, so that a few highlights, infinities
    and NaN do not decide. A peak of up to twice the candidate is taken to be overshoot, except that whole numbers above
    1 are no overshoot of 1. Where no candidate fits, the peak is white.
    """
    dtype, values = values.dtype, values.reshape(-1)
    if values.size > 4_000_000:
        values = values[:: values.size // 2_000_000]
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 1.0
    peak = float(np.percentile(values, SHARE, method="lower"))
    fractional = bool((values != np.rint(values)).any())
    if peak <= (OVERSHOOT if fractional else 1):
        return 1.0
    if peak <= OVERSHOOT * 255:
        return 255.0
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).max if peak > 65535 or dtype.itemsize < 4 else 65535)
    return 65535.0 if peak <= OVERSHOOT * 65535 else peak
