"""How pictures in the wild come by their damage, made on the accelerator: two rounds after Real-ESRGAN.

After Wang et al., ICCVW 2021: blur, resizing, noise, sharpening and JPEG on a grid finer or coarser than the LR grid,
then once more on the LR grid, and ringing. Unlike in data/degradations.py all shapes are fixed, so that it compiles.
Nothing shifts the picture: kernels are symmetric and grids keep the corners. Letters: R side of the region that is
read, n of the LR picture, c of the canvas on which it is made: larger, so that JPEG's blocks lie anywhere.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .dice import Dice, coin, integer, make_dice, uniform
from .filters import BOX, CUBIC, GAUSSIAN, LANCZOS, SINC, TRIANGLE, filter_matrix, grid, resample
from .jpeg import jpeg

CLEAN, LIGHT, HEAVY = range(3)  # amounts of damage
FINEST = 5 / 3  # samples of the first round per LR pixel, at most
STRONGEST = 20.0  # RMS of the damage, in 8-bit levels, whose strength is 1
_CLEAN_KERNELS = (CUBIC,) * 7 + (LANCZOS, LANCZOS, BOX)  # that reduce clean pictures, all alike
_BLUR_RADIUS = 9  # pixels; a blur's kernel ends there
_BLOCK = 16  # pixels of a JPEG block with half the chroma resolution
_DRAWS = 48  # random numbers of one picture, at most


class DamageRanges(NamedTuple):
    """Chances and ranges of one amount of damage, heavy by default; pairs are (low, high), drawn from uniformly."""

    blur_prob: float = 0.75  # of a blur in the first round
    blur_sigma: tuple[float, float] = (0.2, 3.0)  # LR pixels; the cube of a uniform number places it between
    elongation: float = 0.6  # largest logarithm of a blur's sigma along over across its axis, which lies at any angle
    resize_prob: float = 0.8  # of a first round on another grid than the LR one
    resize: tuple[float, float] = (0.6, FINEST)  # its samples per LR pixel
    noise_prob: float = 0.7  # of noise, in each round
    noise_sigma: tuple[float, float] = (1.0, 22.0)  # 8-bit levels; the square of a uniform number places it between
    poisson_prob: float = 0.4  # of noise that grows with the square root of the brightness
    grey_prob: float = 0.4  # of the same noise in all channels
    sharpen_prob: float = 0.25  # of unsharp masking, in each round
    sharpen: tuple[float, float] = (0.2, 0.9)  # its amount
    jpeg_prob: float = 0.7  # of JPEG, in each round
    jpeg_quality: tuple[float, float] = (30.0, 95.0)
    subsample_prob: float = 0.7  # of JPEG with half the chroma resolution
    second: float = 0.5  # factor on the second round's chances and sigmas of blur and noise
    ringing_prob: float = 0.15  # of a last sinc filter, before or after the last JPEG
    ringing: tuple[float, float] = (1.1, 2.0)  # LR pixels between its zeros


LIGHT_RANGES = DamageRanges(
    blur_prob=0.35,
    blur_sigma=(0.2, 1.2),
    elongation=0.3,
    resize_prob=0.5,
    resize=(0.9, 1.3),
    noise_prob=0.4,
    noise_sigma=(0.5, 7.0),
    sharpen_prob=0.15,
    sharpen=(0.1, 0.6),
    jpeg_prob=0.5,
    jpeg_quality=(70.0, 98.0),
    ringing_prob=0.03,
    ringing=(1.0, 1.3),
)


def damage(key, region, origin, pitch, n: int, amount, ranges=(LIGHT_RANGES, DamageRanges())):
    """Draws a low-resolution picture of a region as the wild has it.

    Args: region [R R 3] in [0, 1]; origin, where the LR grid begins in it, (y, x) in source pixels, [2]; pitch, source
      pixels per LR pixel; n, side of the LR picture; amount, CLEAN, LIGHT or HEAVY, traced or not; ranges, what the
      last two draw from.
    Returns: the cubic reduction [n n 3] in [0, 1], not rounded; the damaged picture [n n 3], of 256 levels (where the
      amount is CLEAN a cubic, Lanczos or area reduction); its strength, RMS of their difference in 8-bit levels over
      STRONGEST, at most 1, and exactly 0 where the amount is CLEAN: [].
    """
    key_dice, key_noise = jax.random.split(key)
    dice = make_dice(key_dice, _DRAWS)
    ranges = jax.tree.map(lambda light, heavy: jnp.where(amount == HEAVY, heavy, light), *ranges)
    cubic = reduce_region(region, origin, pitch, n, CUBIC)
    clean = reduce_region(region, origin, pitch, n, _choose(dice, _CLEAN_KERNELS))

    c = math.ceil((n + _BLOCK - 1) / _BLOCK) * _BLOCK
    offset = jnp.stack([integer(dice, 0, c - n) for _ in range(2)])  # of the picture on the canvas
    side = math.ceil(c * FINEST / _BLOCK) * _BLOCK  # of the first round's grid
    noise = jax.random.normal(key_noise, (side**2 + c**2, 3))  # of both rounds: one generator compiles faster
    density = uniform(dice, *ranges.resize)  # samples per LR pixel
    density = jnp.where(coin(dice, ranges.resize_prob), density, 1.0)
    kernel = _choose(dice, (CUBIC, CUBIC, LANCZOS, BOX))
    x = reduce_region(region, origin - offset * pitch, pitch / density, side, kernel)
    x = one_round(dice, noise[: side**2].reshape(x.shape), x, ranges, density)
    kernel = _choose(dice, (CUBIC, CUBIC, LANCZOS, TRIANGLE))
    to_canvas = filter_matrix(grid(c, density), density, kernel, side)  # c side
    x = jnp.clip(resample(x, to_canvas, to_canvas), 0, 1)
    ringing = _ringing(dice, ranges, c)
    before = coin(dice, 0.5)
    x = jnp.where(before, resample(x, ringing, ringing), x)
    x = one_round(dice, noise[side**2 :].reshape(x.shape), x, _weaker(ranges), 1.0)  # c c 3
    x = jnp.where(before, x, resample(x, ringing, ringing))

    x = jax.lax.dynamic_slice(x, (*offset, 0), (n, n, 3))
    x = jnp.round(jnp.clip(jnp.where(amount == CLEAN, clean, x), 0, 1) * 255) / 255
    return cubic, x, jnp.where(amount == CLEAN, 0.0, strength_of(x, cubic))


def strength_of(x, clean):
    """Measures the damage of x against the clean picture, both in [0, 1]: RMS in 8-bit levels over STRONGEST: []."""
    return jnp.minimum(jnp.sqrt(jnp.mean(jnp.square(x - clean))) * 255 / STRONGEST, 1.0)


def reduce_region(region, origin, pitch, count: int, kernel):
    """Samples a region [R R 3] from `origin` [2] on, `pitch` source pixels apart -> [count count 3] in [0, 1]."""
    rows, cols = (filter_matrix(grid(count, pitch, at), pitch, kernel, region.shape[0]) for at in origin)
    return jnp.clip(resample(region, rows, cols), 0, 1)


def one_round(dice: Dice, noise, x, ranges: DamageRanges, density):
    """Blurs, adds noise, sharpens and compresses x [m m 3], each by chance -> [m m 3] in [0, 1]; m a multiple of 16.

    Args: dice, for what is drawn once; noise, standard normal, [m m 3]; density, pixels of x per LR pixel.
    """
    low, high = ranges.blur_sigma
    sigma = density * (low + (high - low) * next(dice) ** 3)
    longer = jnp.exp(0.5 * ranges.elongation * next(dice))
    blurred = blur(x, jnp.stack([sigma * longer, sigma / longer]), uniform(dice, 0.0, math.pi))
    x = jnp.where(coin(dice, ranges.blur_prob), blurred, x)
    x = jnp.where(coin(dice, ranges.noise_prob), add_noise(dice, noise, x, ranges), x)
    amount = uniform(dice, *ranges.sharpen)
    amount = jnp.where(coin(dice, ranges.sharpen_prob), amount, 0.0)
    x = jnp.clip(x + amount * (x - soften(x, jnp.maximum(density, 0.6))), 0, 1)
    packed = jpeg(x, uniform(dice, *ranges.jpeg_quality), coin(dice, ranges.subsample_prob))
    return jnp.where(coin(dice, ranges.jpeg_prob), packed, x)


def blur(x, sigmas, angle):
    """Convolves x [m m 3] with a Gaussian of standard deviations [2], in pixels, the first at `angle` to the x axis.

    A row's weights are a Gaussian in x whose mean moves with the distance d of the rows: products with 2 radius + 1
    matrices (a convolution that has a kernel of its own for each example is slow). The border is repeated.
    """
    m, radius = len(x), _BLUR_RADIUS
    (xx, yy), xy = _axis_variances(sigmas, angle)
    apart = np.arange(-radius, radius + 1)  # d
    shares = jnp.exp(-0.5 * apart**2 / yy)
    shifted = jax.vmap(
        lambda shift: filter_matrix(grid(m, 1.0, shift), 1.0, GAUSSIAN, m, sigma=jnp.sqrt(xx - xy**2 / yy))
    )
    cols = shifted(xy / yy * apart) * (shares / jnp.sum(shares))[:, None, None]  # d n w
    padded = jnp.pad(x, ((radius, radius), (0, 0), (0, 0)), mode="edge")
    rows = jnp.stack([padded[first : first + m] for first in range(2 * radius + 1)])  # d m w 3
    return jnp.einsum("dnw,dmwc->mnc", cols, rows, precision="highest")


def _axis_variances(sigmas, angle):
    """Returns the variances along x and y, and the covariance, of a turned Gaussian; sigmas are 0.25 at least."""
    along, across = jnp.square(jnp.maximum(sigmas, 0.25))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    variances = along * cos**2 + across * sin**2, along * sin**2 + across * cos**2
    return variances, (along - across) * sin * cos


def soften(x, sigma):
    """Convolves x [m m 3] with a round Gaussian; weights beyond the border are left out."""
    matrix = filter_matrix(grid(len(x), 1.0), 1.0, GAUSSIAN, len(x), sigma=sigma)
    return resample(x, matrix, matrix)


def add_noise(dice: Dice, noise, x, ranges: DamageRanges):
    """Scales standard normal noise [h w 3] and adds it to x [h w 3] in [0, 1], perhaps as photons do; not clipped."""
    low, high = ranges.noise_sigma
    sigma = low + (high - low) * next(dice) ** 2
    noise = jnp.where(coin(dice, ranges.grey_prob), noise[..., :1], noise)
    photons = 1.4 * jnp.sqrt(jnp.clip(x, 0.01, 1))  # 1 at a brightness of 0.5
    return x + sigma / 255 * noise * jnp.where(coin(dice, ranges.poisson_prob), photons, 1.0)


def _ringing(dice: Dice, ranges: DamageRanges, side: int):
    """Draws the matrix [side side] of a low-pass with steep edges, or the identity."""
    matrix = filter_matrix(grid(side, 1.0), uniform(dice, *ranges.ringing), SINC, side)
    return jnp.where(coin(dice, ranges.ringing_prob), matrix, jnp.eye(side))


def _weaker(ranges: DamageRanges) -> DamageRanges:
    """Returns the second round's ranges."""
    fields = ("blur_prob", "blur_sigma", "noise_prob", "noise_sigma")
    values = jax.tree.map(lambda v: ranges.second * v, {name: getattr(ranges, name) for name in fields})
    return ranges._replace(**values)


def _choose(dice: Dice, numbers: tuple[int, ...]):
    """Draws one of some numbers, all alike."""
    return jnp.asarray(numbers)[integer(dice, 0, len(numbers) - 1)]
