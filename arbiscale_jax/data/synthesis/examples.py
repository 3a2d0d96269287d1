"""Makes batches of training examples on the devices, from tiles in their memory.

Example i of a batch is a function of (key, i) and the store alone. Letters: n is the side of the LR picture, N the side
of the virtual output that shows the same part, s = N / n the scale, p the side of the window of the output that is the
target, u the factor between the LR picture and what the encoder sees, R the side of the region that is read, r the
number of source pixels per output pixel along a side.
"""

import itertools
import math
from collections.abc import Generator, Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.runtime.random import fold_name, seed_key

from .augment import recolour, turn
from .damage import CLEAN, HEAVY, LIGHT, LIGHT_RANGES, DamageRanges, damage, reduce_region
from .dice import Dice, coin, integer, make_dice, uniform
from .filters import CUBIC
from .pairs import make_pair, number_of_pairs
from .store import TileStore
from .window import in_model_range, window_start

CYCLE = 20  # number of steps in which every variant comes in proportion to its share
_COARSEST = 2.0  # largest number of source pixels per output pixel, along a side
_DRAWS = 40  # largest number of random numbers that an example takes, without those of its damage


class Variant(NamedTuple):
    """Holds the shapes and scales of one kind of batch; each kind is compiled to a program of its own."""

    lr_size: int  # n, side of the LR picture
    patch: int  # p, side of the target, at most n * scale_min
    scale_min: float  # smallest scale N / n; scales are drawn log-uniformly
    scale_max: float  # largest scale
    share: float  # share of the steps, relative to the shares of the other variants
    region: int  # R, side of the region that is read, at least n * scale_max


class Settings(NamedTuple):
    """Holds the settings that all variants share."""

    upsampling: int = 4  # u, factor between the LR picture and what the encoder sees
    margin: int = 4  # output pixels between the window and the border of the output, where there is room
    damage: bool = True  # damage the LR picture; without it lr is the clean picture
    augment: bool = True  # turn and recolour the region; with `whole` only mirror it
    whole: bool = False  # let the LR picture show a whole tile, for pictures that are seen whole, such as emoji
    clean: float = 0.35  # share of examples whose LR picture is only reduced
    light: float = 0.30  # share of examples with light damage
    heavy: float = 0.35  # share of examples with heavy damage
    pairs: float = 0.0  # share of given pairs in the batches of variants whose scales include that of the pairs
    ranges: tuple[DamageRanges, DamageRanges] = (LIGHT_RANGES, DamageRanges())  # light and heavy damage


def batches(
    store: TileStore,
    variants: Sequence[Variant],
    settings: Settings,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    sharding=None,
) -> Generator[dict[str, jax.Array]]:
    """Iterates without end over the batches start_step, start_step + 1, ...; batch k is a function of (seed, k) alone.

    Args:
      store: the tiles, as numpy arrays or on the devices; each device holds all of them.
      variants: the kinds of batches, which take turns.
      settings: what the variants share.
      seed: a whole number >= 0.
      batch_size: examples per batch, over all devices together.
      start_step: number of the first batch.
      sharding: sharding of the batch axis over the devices; None is one device.

    Yields:
      A batch of `make_batch`. Its computation starts when the batch is asked for.
    """
    store = jax.tree.map(jnp.asarray, store)
    root = fold_name(seed_key(seed), "synthesis")
    for step in itertools.count(start_step):
        program = _program(variant_of(step, variants), batch_size, settings, sharding)
        yield program(jax.random.fold_in(root, step), store)


@cache
def _program(variant: Variant, batch_size: int, settings: Settings, sharding):
    """Compiles a function (key, store) -> batch, once for each set of arguments."""

    def make(key, store):
        return make_batch(key, store, variant, batch_size, settings)

    return jax.jit(make) if sharding is None else jax.jit(make, out_shardings=sharding)


def variant_of(step: int, variants: Sequence[Variant]) -> Variant:
    """Returns the variant of a step; variants alternate, and in CYCLE steps each comes in proportion to its share."""
    variants = tuple(variants)
    return variants[_cycle(tuple(one.share for one in variants))[step % CYCLE]]


@cache
def _cycle(shares: tuple[float, ...]) -> tuple[int, ...]:
    """Returns CYCLE indices; each is that of the variant which is furthest behind its share."""
    wanted, counts, order = np.asarray(shares) / sum(shares), np.zeros(len(shares)), []
    for step in range(CYCLE):
        order.append(int(np.argmax(wanted * (step + 1) - counts + 1e-9 * wanted)))
        counts[order[-1]] += 1
    return tuple(order)


def sizes(variant: Variant) -> tuple[int, int]:
    """Returns the smallest and the largest side N of the virtual output, in pixels."""
    low = math.ceil(variant.lr_size * variant.scale_min - 1e-6)
    return low, max(low, math.floor(variant.lr_size * variant.scale_max + 1e-6))


def make_batch(key, store: TileStore, variant: Variant, batch_size: int, settings: Settings) -> dict[str, jax.Array]:
    """Draws a batch of b = batch_size examples; the given pairs among them come first.

    Pictures are float32 in [-1, 1]. All of them except lr are cubic antialiased reductions of one region that are
    aligned with each other: sample k of m over the L source pixels of the LR grid is at (k + 1/2) L / m - 1/2.

    Args:
      key: random key.
      store: the tiles.
      variant: shapes and scales; static under jit.
      batch_size: b; static under jit.
      settings: what all variants share; static under jit.

    Returns:
      lr: [b n n 3], the damaged LR picture, of 256 levels.
      clean_lr: [b n n 3], the LR picture without damage.
      image: [b un un 3], the clean picture that the encoder sees.
      target: [b p p 3], the true output in a window.
      target_size: N, int32 [b].
      target_start: (top, left) of the window in the N x N pixels of the output, int32 [b 2].
      strength: strength of the damage, float32 [b] in [0, 1], 0 if there is none.
      label: labels of the pictures, int32 [b 1 + n], if the store has labels.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch_size))
    paired = store.pairs
    count = number_of_pairs(paired, variant, batch_size, settings)
    examples = jax.vmap(lambda one: make_example(one, store, variant, settings))(keys[count:])
    if paired is None or not count:
        return examples
    pairs = jax.vmap(lambda one: make_pair(one, paired, variant, settings))(keys[:count])
    return jax.tree.map(lambda *both: jnp.concatenate(both), pairs, examples)


def make_example(key, store: TileStore, variant: Variant, settings: Settings) -> dict[str, jax.Array]:
    """Draws one example, which has the arrays of `make_batch` without their first axis."""
    key_dice, key_damage = jax.random.split(key)
    dice = make_dice(key_dice, _DRAWS)
    n, p, fine = variant.lr_size, variant.patch, settings.upsampling * variant.lr_size
    tile = draw_tile(dice, store)
    region = read_region(dice, store, tile, variant.region)
    if settings.augment and settings.whole:
        region = jnp.where(coin(dice, 0.5), region[:, ::-1], region)
    elif settings.augment:
        region = recolour(dice, turn(dice, region))
    size = draw_size(dice, variant)
    origin, r = (jnp.zeros(2), variant.region / size) if settings.whole else _place(dice, size, variant.region)
    span = size * r  # source pixels over which the LR grid extends

    start = window_start(dice, size, p, settings.margin)
    target = reduce_region(region, origin + start * r, r, p, CUBIC)  # p p 3
    image = reduce_region(region, origin, span / fine, fine, CUBIC)  # un un 3
    u = next(dice) * (settings.clean + settings.light + settings.heavy)
    if settings.damage:
        amount = jnp.where(u < settings.clean, CLEAN, jnp.where(u < settings.clean + settings.light, LIGHT, HEAVY))
        clean, lr, strength = damage(key_damage, region, origin, span / n, n, amount, settings.ranges)
    else:
        clean = lr = reduce_region(region, origin, span / n, n, CUBIC)
        strength = jnp.zeros(())
    pictures = {"lr": lr, "clean_lr": clean, "image": image, "target": target}
    numbers = {"target_size": size, "target_start": start, "strength": strength}
    if store.labels is not None:
        numbers["label"] = jnp.asarray(store.labels)[tile]
    return in_model_range(pictures) | numbers


def draw_tile(dice: Dice, store: TileStore):
    """Draws the number of a tile, int32 []."""
    index = jnp.searchsorted(store.cumulative, next(dice), side="right")
    return jnp.minimum(index, len(store.cumulative) - 1).astype(jnp.int32)


def read_region(dice: Dice, store: TileStore, index, side: int):
    """Draws a square of a tile, inside the part that is not padding where that is large enough -> [R R 3]."""
    corner = [integer(dice, 0, room) for room in jnp.maximum(store.sizes[index] - side, 0)]
    region = jax.lax.dynamic_slice(store.tiles, (index, *corner, 0), (1, side, side, 3))[0]
    return region.astype(jnp.float32) / 255


def draw_size(dice: Dice, variant: Variant):
    """Draws N for a log-uniform scale, int32 []; half are whole multiples of n if the range of scales contains one."""
    n, (low, high) = variant.lr_size, sizes(variant)
    scale = jnp.exp(uniform(dice, math.log(variant.scale_min), math.log(variant.scale_max)))
    size = jnp.clip(jnp.round(n * scale), low, high)
    first, last = math.ceil(low / n), high // n
    if first <= last:
        size = jnp.where(coin(dice, 0.5), n * jnp.clip(jnp.round(scale), first, last), size)
    return size.astype(jnp.int32)


def _place(dice: Dice, size, region: int):
    """Draws where the LR grid begins, [2], and r, the source pixels per output pixel; r is 1 half of the time."""
    r = uniform(dice, 1.0, jnp.minimum(_COARSEST, region / size))
    r = jnp.where(coin(dice, 0.5), 1.0, r)
    origin = jnp.stack([next(dice), next(dice)]) * jnp.maximum(region - size * r, 0.0)
    return jnp.where(r == 1, jnp.round(origin), origin), r
