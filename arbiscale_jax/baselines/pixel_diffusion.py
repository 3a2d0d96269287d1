"""Defines diffusion of images with continuous noise levels, as SR3 and IDM use it (Saharia et al. 2021, section 2).

A network eps_fn(x_t, noise_level) predicts the noise of x_t = noise_level x + sqrt(1 - noise_level^2) eps, where
noise_level is sqrt(alpha_bar). The low-resolution image is a condition that eps_fn closes over. Axis letters: b is the
batch, h and w are space, c channels, T timesteps.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import diffusion

SAMPLER = "ddim_trailing"  # T down to x itself, as ancestral sampling does


def draw_noise_level(key, alpha_bar, batch: int):
    """Draws noise levels for training: uniform between those of two neighbouring times (SR3 section 2.4).

    The time is uniform in 1 .. T, where the level before the first time is 1. Every example has a time of its own; in
    the public implementations those of one batch share it.

    Args:
      key: a random key.
      alpha_bar: [T] on the host.
      batch: b, number of levels.

    Returns:
      sqrt(alpha_bar) in (0, 1], float32 [b].
    """
    key_time, key_place = jax.random.split(key)
    edges = jnp.asarray(np.sqrt(np.append(1.0, alpha_bar)), jnp.float32)  # T + 1
    t = jax.random.randint(key_time, (batch,), 1, len(edges))
    return edges[t] + jax.random.uniform(key_place, (batch,)) * (edges[t - 1] - edges[t])


def add_noise(x, eps, noise_level):
    """Draws from q(x_t | x): x_t = noise_level x + sqrt(1 - noise_level^2) eps (SR3 Eq. 4).

    Args:
      x: images in [-1, 1], [b h w c].
      eps: standard normal noise, [b h w c].
      noise_level: sqrt(alpha_bar) in (0, 1], [b].

    Returns:
      x_t, [b h w c].

    Raises:
      ValueError: if eps is not shaped like x.
    """
    if eps.shape != x.shape:
        raise ValueError(f"eps must match x {x.shape}, got {eps.shape}.")
    signal, noise = _amounts(noise_level)
    return signal * x + noise * eps


def _amounts(noise_level):
    """Returns noise_level and sqrt(1 - noise_level^2) as [b 1 1 1]; the product is precise in float32 close to 1."""
    level = noise_level[:, None, None, None]
    return level, jnp.sqrt((1 - level) * (1 + level))


def training_loss(key, eps_fn: Callable, x, alpha_bar):
    """Returns the training loss |eps_hat - eps| at random noise levels (SR3 Eq. 6 with p = 1).

    Args:
      key: a random key, from which the noise and the noise levels are drawn.
      eps_fn: function (x_t [b h w c], noise_level [b]) -> eps_hat [b h w c].
      x: images in [-1, 1], [b h w c].
      alpha_bar: [T] on the host.

    Returns:
      [b].
    """
    key_level, key_eps = jax.random.split(key)
    noise_level = draw_noise_level(key_level, alpha_bar, len(x))
    eps = jax.random.normal(key_eps, x.shape)
    error = jnp.abs(eps_fn(add_noise(x, eps, noise_level), noise_level) - eps)
    return jnp.mean(error, axis=(1, 2, 3))


def sample(
    key,
    eps_fn: Callable,
    shape: tuple[int, ...],
    alpha_bar,
    *,
    steps: int | None = None,
    eta: float = 1.0,
    clip: bool = True,
):
    """Runs the whole reverse process as one scan (SR3 Algorithm 2); `make_sampler` compiles its steps.

    With eta = 1 it is ancestral sampling, whose variance is that of the posterior q(x_s | x_t, x), as in the public
    implementations; the paper has beta_t. With fewer steps than T the same process runs at evenly spaced times, from T
    down; eta = 0 then is DDIM.

    Args:
      key: a random key, from which the first x_T and the noise of the steps are drawn.
      eps_fn: function (x_t [b h w c], noise_level [b]) -> eps_hat [b h w c].
      shape: (b, h, w, c) of the result.
      alpha_bar: [T] on the host.
      steps: network evaluations, 1 .. T; None is T.
      eta: amount of noise in [0, 1] (DDIM Eq. 16).
      clip: clip the predicted image to [-1, 1] in each step.

    Returns:
      Images, [b h w c].

    Raises:
      ValueError: if steps or eta are out of range.
    """
    key_first, key_steps = jax.random.split(key)
    constants, step = _constants(alpha_bar, steps, eta), _make_step(key_steps, eps_fn, shape, alpha_bar, eta, clip)
    x_T = jax.random.normal(key_first, shape)
    x = jax.lax.scan(step, diffusion.begin(x_T, SAMPLER), constants)[0][0]
    return jnp.clip(x, -1, 1) if clip else x


def _constants(alpha_bar, steps: int | None, eta: float) -> tuple[np.ndarray, ...]:
    """Returns what the steps of `sample` are told, see diffusion.make_constants."""
    steps = len(alpha_bar) if steps is None else steps
    return diffusion.make_constants(alpha_bar, steps=steps, sampler=SAMPLER, eta=eta)


def _make_step(key, eps_fn: Callable, shape: tuple[int, ...], alpha_bar, eta: float, clip: bool) -> Callable:
    """Returns a step of `sample` for jax.lax.scan."""
    levels = jnp.asarray(np.sqrt(alpha_bar), jnp.float32)

    def eps_at(x_t, t):
        eps_hat = eps_fn(x_t, levels[t])
        if not clip:
            return eps_hat
        x = jnp.clip(diffusion.predict_z_0(x_t, eps_hat, t, alpha_bar), -1, 1)
        return diffusion.eps_from_z_0(x_t, x, t, alpha_bar)  # the noise that belongs to the clipped image

    def draw(i):
        return jax.random.normal(jax.random.fold_in(key, i), shape)

    return diffusion.make_step(eps_at, SAMPLER, draw if eta else None)


def make_sampler(
    eps_fn: Callable, alpha_bar, *, steps: int | None = None, eta: float = 1.0, clip: bool = True
) -> Callable:
    """Returns a compiled sampler, in which weights and condition are arguments, so that it serves all of a shape.

    Args:
      eps_fn: function (params, x_t [b h w c], noise_level [b], condition) -> eps_hat [b h w c].
      alpha_bar: as in `sample`.
      steps: as in `sample`.
      eta: as in `sample`.
      clip: as in `sample`.

    Returns:
      Function (key, params, condition, shape, advance=None) -> images; params and condition are pytrees of arrays,
      shape is (b, h, w, c), and advance is told of evaluations (diffusion.run_in_parts).

    Raises:
      ValueError: if steps or eta are out of range.
    """
    constants = _constants(alpha_bar, steps, eta)
    first = jax.jit(jax.random.normal, static_argnums=1)

    @jax.jit
    def part(key, params, condition, carry, some):
        def denoise(x_t, noise_level):
            return eps_fn(params, x_t, noise_level, condition)

        step = _make_step(key, denoise, carry[0].shape, alpha_bar, eta, clip)
        return jax.lax.scan(step, carry, some)[0]

    def run(key, params, condition, shape, advance: diffusion.Advance | None = None):
        key_first, key_steps = jax.random.split(key)
        carry = diffusion.begin(first(key_first, shape), SAMPLER)
        x = diffusion.run_in_parts(partial(part, key_steps, params, condition), carry, constants, advance)[0]
        return jnp.clip(x, -1, 1) if clip else x

    return run
