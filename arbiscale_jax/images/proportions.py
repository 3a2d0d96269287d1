"""Computes sizes that keep the proportion of a picture's sides; sizes are (height, width)."""

from collections.abc import Sequence


def with_side(shape: Sequence[int], *, long: int | None = None, short: int | None = None) -> tuple[int, int]:
    """Returns the size in the proportion of `shape` (h, w) whose longer or shorter side, one of them, is given."""
    wanted, given = (short, min(shape)) if long is None else (long, max(shape))
    height, width = (max(1, round((wanted or 1) * side / given)) for side in shape)
    return height, width
