"""Computes the losses of the paper's second and third stage, with one value per example."""

import jax.numpy as jnp

from .schedule import at


def mean_square(x):
    """Returns the mean of x^2 over all axes except the batch: [b ...] -> [b]."""
    return jnp.mean(jnp.square(x), axis=tuple(range(1, x.ndim)))


def eps_loss(eps_hat, eps):
    """Returns the loss L_dm (paper Eq. 4), the mean squared error of the noise: [b h w c] -> [b].

    By Eq. 8 this is the error of z_0-hat with the weight of Eq. 7 already, so alignment gives it no further weight.
    """
    return mean_square(eps_hat - eps)


def snr_weight(t, alpha_bar, cap: float | None = None):
    """Returns the weight alpha_bar / (1 - alpha_bar) (paper Eq. 7) at t [b], at most `cap` -> [b]."""
    weight = at(alpha_bar / (1 - alpha_bar), t)[:, 0, 0, 0]
    return jnp.minimum(weight, cap) if cap else weight


def min_snr_weight(t, alpha_bar, gamma: float):
    """Returns the min-SNR weight for a network that predicts eps (Hang et al. 2023).

    Args:
      t: times, [b].
      alpha_bar: [T] on the host.
      gamma: largest signal-to-noise ratio that counts fully.

    Returns:
      min(SNR, gamma) / SNR with SNR = alpha_bar / (1 - alpha_bar) at t: [b] in (0, 1].
    """
    return jnp.minimum(1.0, gamma / snr_weight(t, alpha_bar))


def recon_loss(x_hat, x, t, alpha_bar, cap: float | None = None):
    """Returns the loss L_recon (paper Eq. 7): the weighted mean squared error of a render.

    Args:
      x_hat: the render of z_0-hat, [b h w 3].
      x: the true image, [b h w 3].
      t: time of each example, [b].
      alpha_bar: [T] on the host.
      cap: largest value of the weight; None or 0 is no limit.

    Returns:
      [b].
    """
    return snr_weight(t, alpha_bar, cap) * mean_square(x_hat - x)
