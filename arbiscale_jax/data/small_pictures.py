"""Leaves out pictures that are too small to learn from: enlarged to the size of an example, they would be a blur."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError

from .folders import report
from .split_lines import named

MOST_ENLARGED = 8  # a picture that would be enlarged more than so many times is too small
MOST_MEASURED = 20_000  # pictures that are measured when a source is opened; of larger sources, those that are read


def least_side(size: int, given: int = 0) -> int:
    """Returns the least shorter side of a picture for examples of `size` pixels; `given` is the user's, or 0."""
    return given or max(2, -(-size // MOST_ENLARGED))


def without_small(names: Any, measure: Callable[[Any], int | None], least: int, title: str) -> Any:
    """Leaves out the names of pictures whose shorter side is below `least`, and reports how many and which.

    Args:
      names: a list of names of files, or an array of numbers of records.
      measure: returns the shorter side of a picture in pixels without decoding it, or None if it is unknown.
      least: the least shorter side; 0 leaves nothing out.
      title: what the pictures are called in messages.

    Raises:
      UserError: if nothing remains.
    """
    if not least or len(names) > MOST_MEASURED:
        return names
    sides = [measure(name) for name in names]
    keep = np.array([side is None or side >= least for side in sides], bool)
    if keep.all():
        return names
    small = [str(name) for name, kept in zip(names, keep, strict=True) if not kept]
    if not keep.any():
        raise UserError(
            f"All {len(small)} images of {title} are too small to learn from, with a shorter side below {least} pixels "
            f"(data.min_side): {named(small)}; give larger ones."
        )
    report(
        f"{len(small)} of the {len(names)} images of {title} are left out, since their shorter side is below {least} "
        f"pixels (data.min_side): {named(small)}."
    )
    return names[keep] if isinstance(names, np.ndarray) else [x for x, kept in zip(names, keep, strict=True) if kept]


def measure_file(file: Path | BinaryIO) -> int | None:
    """Returns the shorter side of a picture, which its header states, or None if Pillow cannot read the header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return min(image.size)
    except Exception:  # damaged files make Pillow raise errors of many types; whoever decodes the picture says why
        return None


def large_enough(name, read: Callable[[Any], Any], least: int, title: str) -> Any:
    """Reads a picture or a pair, and raises UserError if the shorter side of the (larger) picture is below `least`."""
    image = read(name)
    shape = (image[0] if isinstance(image, tuple) else image).shape
    if min(shape[:2]) < least:
        raise UserError(
            f"{name} of {title} has {shape[0]} x {shape[1]} pixels, too few to learn from: its shorter side is below "
            f"{least} (data.min_side)."
        )
    return image
