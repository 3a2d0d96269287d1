"""Computes the forward process of diffusion and its inverse, in closed form (paper Eq. 1, DDPM)."""

import jax
import jax.numpy as jnp
import numpy as np


def make_alpha_bar(timesteps: int, linear_start: float, linear_end: float, power: float = 0.5) -> np.ndarray:
    """Computes alpha_bar_t, the product of 1 - beta_s over all s <= t; the square roots of the betas are linear in s.

    Args:
      timesteps: T, number of times.
      linear_start: first beta.
      linear_end: last beta.
      power: the power of the betas that is linear in s, by default that of the paper; with 1 the betas are linear.

    Returns:
      float64 [T], decreasing within (0, 1).

    Raises:
      ValueError: unless T >= 2 and 0 < linear_start <= linear_end < 1.
    """
    if timesteps < 2 or not 0 < linear_start <= linear_end < 1:
        raise ValueError(
            "A schedule needs timesteps >= 2 and 0 < linear_start <= linear_end < 1, "
            f"got {timesteps}, {linear_start}, {linear_end}."
        )
    betas = np.linspace(linear_start**power, linear_end**power, timesteps, dtype=np.float64) ** (1 / power)
    return np.cumprod(1 - betas)


def at(values, t):
    """Returns values[t], shaped to broadcast: values float64 [T] on the host, t [b] -> float32 [b 1 1 1]."""
    return jnp.asarray(values, jnp.float32)[t][:, None, None, None]


def q_sample(z_0, eps, t, alpha_bar):
    """Draws from q(z_t | z_0): z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps (paper Eq. 1).

    Args:
      z_0: clean latents, [b h w c].
      eps: standard normal noise, [b h w c].
      t: integers in [0, T), [b].
      alpha_bar: [T] on the host.

    Returns:
      z_t, [b h w c].

    Raises:
      ValueError: if eps is not shaped like z_0.
    """
    if eps.shape != z_0.shape:
        raise ValueError(f"eps must match z_0 {z_0.shape}, got {eps.shape}.")
    return at(np.sqrt(alpha_bar), t) * z_0 + at(np.sqrt(1 - alpha_bar), t) * eps


def predict_z_0(z_t, eps_hat, t, alpha_bar):
    """Solves paper Eq. 1 for z_0, given predicted noise: z_t, eps_hat [b h w c]; t [b] -> z_0-hat [b h w c]."""
    return at(np.sqrt(1 / alpha_bar), t) * z_t - at(np.sqrt(1 / alpha_bar - 1), t) * eps_hat


def eps_from_z_0(z_t, z_0_hat, t, alpha_bar):
    """Solves paper Eq. 1 for the noise, given a prediction of z_0; this is the inverse of `predict_z_0`.

    Args:
      z_t: noisy latents, [b h w c].
      z_0_hat: predicted clean latents, [b h w c].
      t: times in [0, T - 1], [b]; at fractional times the log-SNR is interpolated linearly, as
        `samplers.dpmpp_trajectory` does.
      alpha_bar: [T] on the host.

    Returns:
      eps_hat, [b h w c].
    """
    log_snr = jnp.asarray(np.log(alpha_bar / (1 - alpha_bar)), jnp.float32)
    times = jnp.arange(len(alpha_bar), dtype=jnp.float32)
    here = jnp.interp(t.astype(jnp.float32), times, log_snr)[:, None, None, None]
    signal, noise = jnp.sqrt(jax.nn.sigmoid(here)), jnp.sqrt(jax.nn.sigmoid(-here))
    return (z_t - signal * z_0_hat) / noise
