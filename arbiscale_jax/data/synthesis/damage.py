"""Damages pictures on the accelerator as pictures in the wild are damaged, in two rounds as in Real-ESRGAN.

As in Wang et al., ICCVW 2021, the first round applies blur, resizing, noise, sharpening and JPEG on a grid that is
finer or coarser than the LR grid, and the second round repeats them on the LR grid and adds ringing. Unlike in
data/degradations.py all shapes are fixed, so the code can be compiled. Nothing shifts the picture: kernels are
symmetric, and grids keep the corners. Letters: R is the side of the region that is read, n the side of the LR picture,
c the side of the canvas on which it is made. The canvas is larger, so the blocks of JPEG can begin anywhere.
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
FINEST = 5 / 3  # largest number of samples per LR pixel in the first round, along a side
STRONGEST = 20.0  # root mean square of damage whose strength is 1, in 8-bit levels
_CLEAN_KERNELS = (CUBIC,) * 7 + (LANCZOS, LANCZOS, BOX)  # kernels that reduce clean pictures, each equally likely
_BLUR_RADIUS = 9  # pixels at which the kernel of a blur is cut off
_BLOCK = 16  # side in pixels of a JPEG block with half the chroma resolution
_DRAWS = 48  # largest number of random numbers that one picture takes


class DamageRanges(NamedTuple):
    """Holds the probabilities and ranges of one amount of damage; the defaults are heavy damage.

    A range is a pair (low, high), from which a value is drawn uniformly unless its comment says otherwise.
    """

    blur_prob: float = 0.75  # probability of a blur in the first round
    blur_sigma: tuple[float, float] = (0.2, 3.0)  # in LR pixels: low + (high - low) u^3, u uniform in [0, 1)
    elongation: float = 0.6  # largest ln(sigma along the blur's axis / sigma across it); the axis has any angle
    resize_prob: float = 0.8  # probability that the first round is on another grid than the LR grid
    resize: tuple[float, float] = (0.6, FINEST)  # samples of that grid per LR pixel, along a side
    noise_prob: float = 0.7  # probability of noise in the first round
    noise_sigma: tuple[float, float] = (1.0, 22.0)  # in 8-bit levels: low + (high - low) u^2, u uniform in [0, 1)
    poisson_prob: float = 0.4  # probability that noise grows with the square root of the brightness
    grey_prob: float = 0.4  # probability that all channels get the same noise
    sharpen_prob: float = 0.25  # probability of unsharp masking in each round
    sharpen: tuple[float, float] = (0.2, 0.9)  # amount of unsharp masking
    jpeg_prob: float = 0.7  # probability of JPEG in each round
    jpeg_quality: tuple[float, float] = (30.0, 95.0)  # quality on libjpeg's scale
    subsample_prob: float = 0.7  # probability that JPEG halves the chroma resolution
    second: float = 0.5  # factor on blur_prob, blur_sigma, noise_prob and noise_sigma in the second round
    ringing_prob: float = 0.15  # probability of a sinc filter just before or after the second round
    ringing: tuple[float, float] = (1.1, 2.0)  # distance between the zeros of that filter, in LR pixels


HEAVY_RANGES = DamageRanges()
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


def damage(key, region, origin, pitch, n: int, amount, ranges=(LIGHT_RANGES, HEAVY_RANGES)):
    """Draws a damaged low-resolution picture of a region.

    Args:
      key: random key.
      region: [R R 3] in [0, 1].
      origin: (y, x) of the point in the region where the LR grid begins, in source pixels, [2].
      pitch: source pixels per LR pixel, along a side.
      n: side of the LR picture.
      amount: CLEAN, LIGHT or HEAVY; it may be traced.
      ranges: the DamageRanges of LIGHT and of HEAVY.

    Returns:
      clean: the cubic reduction [n n 3] in [0, 1], not rounded.
      lr: the damaged picture [n n 3] in [0, 1], of 256 levels; if the amount is CLEAN, a cubic, Lanczos or area
        reduction.
      strength: what `strength_of` measures between the two, [], exactly 0 if the amount is CLEAN.
    """
    key_dice, key_noise = jax.random.split(key)
    dice = make_dice(key_dice, _DRAWS)
    ranges = jax.tree.map(lambda light, heavy: jnp.where(amount == HEAVY, heavy, light), *ranges)
    cubic = reduce_region(region, origin, pitch, n, CUBIC)
    clean = reduce_region(region, origin, pitch, n, _choose(dice, _CLEAN_KERNELS))

    c = math.ceil((n + _BLOCK - 1) / _BLOCK) * _BLOCK
    offset = jnp.stack([integer(dice, 0, c - n) for _ in range(2)])  # where the picture begins on the canvas
    side = math.ceil(c * FINEST / _BLOCK) * _BLOCK  # side of the grid of the first round
    noise = jax.random.normal(key_noise, (side**2 + c**2, 3))  # for both rounds, since one generator compiles faster
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
    """Measures how strongly a picture is damaged.

    Args:
      x: the damaged picture in [0, 1].
      clean: the clean picture in [0, 1], of the same shape.

    Returns:
      The root mean square of their difference in 8-bit levels, divided by STRONGEST, and at most 1: [].
    """
    return jnp.minimum(jnp.sqrt(jnp.mean(jnp.square(x - clean))) * 255 / STRONGEST, 1.0)


def reduce_region(region, origin, pitch, count: int, kernel):
    """Samples a region [R R 3] every `pitch` source pixels from `origin` [2] on -> [count count 3] in [0, 1]."""
    rows, cols = (filter_matrix(grid(count, pitch, at), pitch, kernel, region.shape[0]) for at in origin)
    return jnp.clip(resample(region, rows, cols), 0, 1)


def one_round(dice: Dice, noise, x, ranges: DamageRanges, density):
    """Blurs, adds noise, sharpens and compresses a picture, each with its probability.

    Args:
      dice: source of the single random numbers.
      noise: standard normal, [m m 3].
      x: the picture [m m 3] in [0, 1]; m is a multiple of 16.
      ranges: probabilities and ranges.
      density: pixels of x per LR pixel, along a side.

    Returns:
      The damaged picture [m m 3] in [0, 1].
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
    """Convolves a picture with a Gaussian that is longer along one axis; pixels at the border are repeated.

    At a distance of d rows the weights are a Gaussian in x whose mean moves with d, so the convolution is computed as
    2 radius + 1 matrix products. A convolution with a different kernel for each example would be slow.

    Args:
      x: [m m 3].
      sigmas: the two standard deviations in pixels, [2].
      angle: angle between the axis of the first one and the x axis, in radians.

    Returns:
      [m m 3].
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
    """Returns ((variance along x, along y), covariance) of a turned Gaussian; sigmas below 0.25 are raised to 0.25."""
    along, across = jnp.square(jnp.maximum(sigmas, 0.25))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    variances = along * cos**2 + across * sin**2, along * sin**2 + across * cos**2
    return variances, (along - across) * sin * cos


def soften(x, sigma):
    """Convolves x [m m 3] with a round Gaussian, whose weights beyond the border are left out -> [m m 3]."""
    matrix = filter_matrix(grid(len(x), 1.0), 1.0, GAUSSIAN, len(x), sigma=sigma)
    return resample(x, matrix, matrix)


def add_noise(dice: Dice, noise, x, ranges: DamageRanges):
    """Adds scaled standard normal noise [h w 3] to x [h w 3] in [0, 1], perhaps like photon noise; it does not clip."""
    low, high = ranges.noise_sigma
    sigma = low + (high - low) * next(dice) ** 2
    noise = jnp.where(coin(dice, ranges.grey_prob), noise[..., :1], noise)
    photons = 1.4 * jnp.sqrt(jnp.clip(x, 0.01, 1))  # about 1 at a brightness of 0.5
    return x + sigma / 255 * noise * jnp.where(coin(dice, ranges.poisson_prob), photons, 1.0)


def _ringing(dice: Dice, ranges: DamageRanges, side: int):
    """Draws the matrix [side side] of a low-pass filter with a steep edge, or the identity matrix."""
    matrix = filter_matrix(grid(side, 1.0), uniform(dice, *ranges.ringing), SINC, side)
    return jnp.where(coin(dice, ranges.ringing_prob), matrix, jnp.eye(side))


def _weaker(ranges: DamageRanges) -> DamageRanges:
    """Returns the ranges of the second round."""
    fields = ("blur_prob", "blur_sigma", "noise_prob", "noise_sigma")
    values = jax.tree.map(lambda v: ranges.second * v, {name: getattr(ranges, name) for name in fields})
    return ranges._replace(**values)


def _choose(dice: Dice, numbers: tuple[int, ...]):
    """Draws one of some numbers, each equally likely."""
    return jnp.asarray(numbers)[integer(dice, 0, len(numbers) - 1)]
