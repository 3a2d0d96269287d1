"""Defines what sampling is given besides the weights, and computes its noise and its guidance from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import diffusion

from .frames import Frame
from .options import Sampling


class Blend(NamedTuple):
    """Says how noise is mixed with that of another seed, for each example."""

    key: Any  # the key of the other noise
    own: Any  # the weight of the noise of Given.key, float32 [b 1 1 1]
    other: Any  # the weight of the other noise; the sum of the squares is 1, so that the mixture is standard normal


class Given(NamedTuple):
    """Holds what sampling is given besides the weights."""

    c: Any  # the condition, scaled, [b h w c], or None
    strength: Any  # strength of the input's damage, [b], negative where unknown; None for a model that is not told
    cells: Any  # names of the cells, integers [b h w 3], see diffusion.cell_noise
    key: Any  # the key of all noise
    frame: Frame | None = None  # where the pictures lie; None means that they fill the arrays
    label: Any = None  # labels [b 1 + n], or None for a model that knows none
    guidance: Any = None  # (scale, first time, last time), float32 [3]; None means no guidance
    blend: Blend | None = None  # noise of another seed; None means none


def guidance_of(options: Sampling, T: int) -> np.ndarray | None:
    """Returns the guidance for Given, float32 [3], or None where it would change nothing.

    Args:
      options: the scale, and the shares of the T times between which there is guidance.
      T: the number of times.
    """
    if options.guidance == 1 or options.guidance_low >= options.guidance_high:
        return None
    return np.array([options.guidance, options.guidance_low * T, options.guidance_high * T], np.float32)


def guided(eps_of: Callable, given: Given, t):
    """Predicts noise with classifier-free guidance in an interval of times.

    eps_hat = eps(label) + (w - 1) (eps(label) - eps(nothing)), which is w eps(label) + (1 - w) eps(nothing) (Ho and
    Salimans 2022, Eq. 6, with w + 1 for its w). Outside the interval it is eps(label), and the second evaluation is
    left out (Kynkäänniemi et al. 2024). With w = 1, or equal predictions, it is eps(label) bit for bit.

    Args:
      eps_of: (label [b 1 + n] or None) -> eps_hat [b h w c] at z_t and t.
      given: the labels and the guidance.
      t: the time, equal for all examples, [b].

    Returns:
      eps_hat, [b h w c].
    """
    eps = eps_of(given.label)
    if given.guidance is None or given.label is None:
        return eps
    scale, first, last = given.guidance
    inside = (first <= t[0]) & (t[0] <= last)
    free = jax.lax.cond(inside, lambda: eps_of(jnp.zeros_like(given.label)), lambda: eps)
    return eps + (scale - 1) * (eps - free)


def draw_noise(given: Given, draw, channels: int):
    """Draws noise for the cells, [b h w channels], number `draw` of the sampling; see diffusion.cell_noise."""
    noise = diffusion.cell_noise(given.key, given.cells, draw, channels)
    if given.blend is None:
        return noise
    key, own, other = given.blend
    return own * noise + other * diffusion.cell_noise(key, given.cells, draw, channels)


def slerp_weights(u) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of two noises at shares u in [0, 1] of the way from the first to the second.

    Independent standard normal noises are orthogonal in expectation, so spherical interpolation (Shoemake 1985) has the
    weights cos(u pi / 2) and sin(u pi / 2), and every mixture is standard normal. At the ends they are 1 and 0 exactly.

    Args:
      u: shares, [n].

    Returns:
      Two float32 arrays [n].
    """
    angle = np.asarray(u, np.float64) * np.pi / 2
    own, other = np.cos(angle), np.sin(angle)
    own[np.asarray(u) == 1], other[np.asarray(u) == 0] = 0, 0  # cos(pi / 2) is not 0 in floating point
    return own.astype(np.float32), other.astype(np.float32)
