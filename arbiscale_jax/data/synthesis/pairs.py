"""Makes examples from given pairs of an LR picture and its larger one, from two cameras or from another upscaler."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.errors import UserError

from ..sources import make_source
from .augment import recolour, turn
from .damage import reduce_region, strength_of
from .dice import integer, make_dice
from .filters import CUBIC
from .store import PairStore, starts
from .window import in_model_range, window_start

_DRAWS = 40  # largest number of random numbers that an example takes
_AUGMENT = 20  # how many of them are for turning and recolouring, at most


def read_pairs(root: str) -> PairStore:
    """Reads the pictures in ROOT/lr and those of the same names in ROOT/hr, which are a whole number of times larger.

    Args:
      root: the folder ROOT.

    Returns:
      The pairs, cut into square tiles; the side of a tile is the shortest side of all LR pictures.

    Raises:
      UserError: if the names in the two folders differ, or the pairs do not all have the same whole scale.
    """
    low, high = (make_source("folder", str(Path(root) / part), "all", cache_bytes=0) for part in ("lr", "hr"))
    names, others = ([Path(source.name(i)).with_suffix("") for i in range(len(source))] for source in (low, high))
    if names != others:
        lone = sorted(str(name) for name in set(names) ^ set(others))[:3]
        raise UserError(f"The pairs of {root} need the same names in lr and hr; unpaired are {', '.join(lone)}.")
    pictures = [(low[i], high[i]) for i in range(len(low))]
    side, scale = min(min(lr.shape[:2]) for lr, _ in pictures), pictures[0][1].shape[0] // pictures[0][0].shape[0]
    for name, (lr, hr) in zip(names, pictures, strict=True):
        wanted = tuple(scale * length for length in lr.shape[:2])
        if scale < 1 or hr.shape[:2] != wanted:
            raise UserError(
                f"The pair {name} of {root} has sizes {lr.shape[:2]} and {hr.shape[:2]}; that of hr must be {wanted}."
            )
    tiles = [tile for pair in pictures for tile in _cut(*pair, side)]
    return PairStore(*(np.stack(part) for part in zip(*tiles, strict=True)))


def _cut(lr: np.ndarray, hr: np.ndarray, side: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Cuts a pair into tiles with a side of `side` LR pixels."""
    scale = len(hr) // len(lr)
    places = [(i, j) for i in starts(lr.shape[0], side) for j in starts(lr.shape[1], side)]
    return [(_window(lr, i, j, side), _window(hr, scale * i, scale * j, scale * side)) for i, j in places]


def _window(picture: np.ndarray, i: int, j: int, side: int) -> np.ndarray:
    return picture[i : i + side, j : j + side]


def number_of_pairs(pairs: PairStore | None, variant, batch_size: int, settings) -> int:
    """Returns how many examples of a batch are pairs: none if the variant lacks their scale or damage is off."""
    if pairs is None or not settings.damage:
        return 0
    fits = variant.scale_min <= pairs.scale <= variant.scale_max and variant.lr_size <= pairs.lr.shape[1]
    return min(round(settings.pairs * batch_size), batch_size - 1) if fits else 0


def make_pair(key, pairs: PairStore, variant, settings) -> dict[str, jax.Array]:
    """Draws one example from a pair, which has the arrays of `examples.make_batch` without their first axis.

    The larger picture is the true output, at the scale of the pairs; clean_lr is its cubic reduction, and strength
    measures how lr differs from that.
    """
    dice, scale = make_dice(key, _DRAWS), pairs.scale
    n, p, fine, size = variant.lr_size, variant.patch, settings.upsampling * variant.lr_size, scale * variant.lr_size
    index = integer(dice, 0, len(pairs.lr) - 1)
    top, left = (integer(dice, 0, pairs.lr.shape[1] - n) for _ in range(2))
    lr = jax.lax.dynamic_slice(pairs.lr, (index, top, left, 0), (1, n, n, 3))[0] / 255.0
    hr = jax.lax.dynamic_slice(pairs.hr, (index, scale * top, scale * left, 0), (1, size, size, 3))[0] / 255.0
    if settings.augment:
        rolls = [next(dice) for _ in range(_AUGMENT)]  # both pictures are augmented by the same numbers
        lr, hr = turn(iter(rolls), lr), turn(iter(rolls), hr)
        pixels = jnp.concatenate([lr.reshape(1, -1, 3), hr.reshape(1, -1, 3)], axis=1)
        pixels = recolour(iter(rolls[3:]), pixels)[0]
        lr, hr = pixels[: n * n].reshape(lr.shape), pixels[n * n :].reshape(hr.shape)
        lr = jnp.round(lr * 255) / 255
    start = window_start(dice, size, p, settings.margin)
    target = jax.lax.dynamic_slice(hr, (*start, 0), (p, p, 3))
    clean, image = (reduce_region(hr, jnp.zeros(2), size / count, count, CUBIC) for count in (n, fine))
    pictures = {"lr": lr, "clean_lr": clean, "image": image, "target": target}
    numbers = {"target_size": jnp.int32(size), "target_start": start, "strength": strength_of(lr, clean)}
    return in_model_range(pictures) | numbers
