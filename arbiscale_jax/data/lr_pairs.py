"""Finds the low-resolution (LR) pictures that belong to larger ones (HR), and checks that each shows the same.

Letters: H, W are the sides of the larger picture, h, w those of the LR picture, s the scale of the pair.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arbiscale_jax.errors import UserError

from .folders import find_images, parse_roots, report, title
from .split_lines import named, plain_name

# how names of LR pictures end, such as 0801x4.png of DIV2K, 0801x4m.png of its tracks, 1_LR4.png, and of larger ones
_SUFFIX = re.compile(r"[ _.-]?(?:x\d+(?:\.\d+)?(?:[a-z]\d*)?|lr\d*|hr|gt)$", re.IGNORECASE)


class PicturePair(NamedTuple):
    """Holds a picture and its LR picture."""

    hr: np.ndarray  # the larger picture, uint8 [H, W, 3]
    lr: np.ndarray  # the LR picture, uint8 [h, w, 3]
    scale: float  # s; the LR pixel i covers the pixels from i s to (i + 1) s


def pair_scale(hr: Sequence[int], lr: Sequence[int]) -> float | None:
    """Returns the scale s of a pair for which h and w are H / s and W / s, rounded up or down.

    It is the whole number next to the ratio of the sides if that fits.

    Args:
      hr: (H, W) of the larger picture.
      lr: (h, w) of the LR picture.

    Returns:
      The scale, at least 1, or None if there is none.
    """
    low = max(large / (small + 1) for large, small in zip(hr, lr, strict=True))
    high = min(large / (small - 1) if small > 1 else np.inf for large, small in zip(hr, lr, strict=True))
    ratio = float(np.sqrt(hr[0] * hr[1] / (lr[0] * lr[1])))
    if not low < high or ratio < 1:
        return None
    if low < round(ratio) < high:
        return float(round(ratio))
    return ratio if low < ratio < high else None


def read_pair(name: str, read: Callable[[str], np.ndarray], small: Mapping[str, str], read_lr) -> PicturePair:
    """Reads a picture and its LR picture.

    Args:
      name: the name of the picture.
      read: reads it.
      small: the LR picture's name by the picture's.
      read_lr: reads an LR picture.

    Raises:
      UserError: if one cannot be read, or their sides have no common ratio.
    """
    hr, lr = read(name), read_lr(small[name])
    scale = pair_scale(hr.shape[:2], lr.shape[:2])
    if scale is None:
        (H, W), (h, w) = hr.shape[:2], lr.shape[:2]
        raise UserError(
            f"The pair {name} ({H} x {W}) and {small[name]} ({h} x {w}) has no common scale of at least 1: the ratios "
            f"are {H / h:.3f} and {W / w:.3f}; give the LR picture of the whole picture."
        )
    return PicturePair(hr, lr, scale)


def pair_up(roots: Mapping[str, Path], names: Sequence[str], lr_root) -> tuple[dict[str, Path], dict[str, str]]:
    """Finds the LR picture of each picture.

    The LR picture has the same path below its folder, or a name with a suffix such as x4, in any subfolder. Pictures
    without one are left out with a word.

    Args:
      roots: the folders of the pictures, as `folders.parse_roots` returns them.
      names: their names.
      lr_root: the folders of LR pictures, as many and in the same order.

    Returns:
      The folders of the LR pictures, and the LR picture's name by the picture's.

    Raises:
      UserError: if no picture has an LR picture, one has several, or the numbers of folders differ.
    """
    lr_roots = parse_roots(lr_root)
    if len(lr_roots) != len(roots):
        raise UserError(f"data.lr_root names {len(lr_roots)} folders and data.root {len(roots)}; give one for each.")
    found, every = {}, find_images(lr_roots)
    for label, lr_label in zip(roots, lr_roots, strict=True):
        pictures = {_below(name, label): name for name in names if not label or name.startswith(f"{label}/")}
        small = {_below(name, lr_label): name for name in every if not lr_label or name.startswith(f"{lr_label}/")}
        matches = _match(list(pictures), list(small), title(lr_roots))
        found |= {pictures[name]: small[lr] for name, lr in matches.items()}
    if not found:
        raise UserError(
            f"None of the {len(names)} images of the {title(roots)}, such as {names[0]}, has an LR picture in the "
            f"{title(lr_roots)}, whose first is {every[0]}; their names must agree up to a suffix such as x4."
        )
    if lone := [name for name in names if name not in found]:
        report(f"{len(lone)} of the {len(names)} images have no LR picture and are left out: {named(lone)}.")
    if lone := sorted(set(every) - set(found.values())):
        report(f"{len(lone)} of the {len(every)} LR pictures belong to no image: {named(lone)}.")
    return lr_roots, found


def _below(name: str, label: str) -> str:
    return name[len(label) + 1 :] if label else name


def _match(pictures: list[str], small: list[str], where: str) -> dict[str, str]:
    """Returns the LR picture of each picture, both by their names below their folders."""
    ways = [(_whole, _whole), (_whole, _bare), (_bare, _bare), (_file, _file), (_file, _bare_file)]
    ways += [(_bare_file, _bare_file)]
    known = {way: _by(pictures, way) for way in {own for own, _ in ways}}
    found: dict[str, str] = {}
    for lr in small:
        names = next((known[own][way(lr)] for own, way in ways if way(lr) in known[own]), [])
        if len(names) > 1:
            raise UserError(f"{lr} of the {where} may belong to {names[0]} or {names[1]}; give them the same paths.")
        for name in names:
            if name in found:
                raise UserError(
                    f"{name} has several LR pictures in the {where}: {found[name]} and {lr}; give the folder of one "
                    "scale."
                )
            found[name] = lr
    return found


def _by(names: list[str], way: Callable[[str], str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name in names:
        found[way(name)].append(name)
    return found


def _whole(name: str) -> str:
    return plain_name(os.path.splitext(name)[0])


def _bare(name: str) -> str:
    """Returns a path without extension and suffixes."""
    found = _whole(name)
    while (shorter := _SUFFIX.sub("", found)) not in (found, "") and not shorter.endswith("/"):
        found = shorter
    return found


def _file(name: str) -> str:
    return _whole(name).rsplit("/", 1)[-1]


def _bare_file(name: str) -> str:
    return _bare(name).rsplit("/", 1)[-1]
