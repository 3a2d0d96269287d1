"""The losses of the paper's second and third stage, one value per example."""

import jax.numpy as jnp

from .schedule import at


def mean_square(x):
    """Means x^2 over all axes but the batch: [b ...] -> [b]."""
    return jnp.mean(jnp.square(x), axis=tuple(range(1, x.ndim)))


def eps_loss(eps_hat, eps):
    """L_dm of Eq. 4: the mean squared error of the noise, [b h w c] -> [b].

    By Eq. 8 it already is the error of z_0-hat under the weight of Eq. 7, so alignment weights it no further.
    """
    return mean_square(eps_hat - eps)


def snr_weight(t, alpha_bar, cap: float | None = None):
    """The weight of Eq. 7, alpha_bar / (1 - alpha_bar) at t [b], at most `cap` -> [b]."""
    weight = at(alpha_bar / (1 - alpha_bar), t)[:, 0, 0, 0]
    return jnp.minimum(weight, cap) if cap else weight


def min_snr_weight(t, alpha_bar, gamma: float):
    """Hang et al. 2023, for eps: min(SNR, gamma) / SNR, SNR = alpha_bar / (1 - alpha_bar) at t [b] -> [b] in (0, 1]."""
    return jnp.minimum(1.0, gamma / snr_weight(t, alpha_bar))


def recon_loss(x_hat, x, t, alpha_bar, cap: float | None = None):
    """L_recon of Eq. 7: weight times the mean squared error of the render, each example with its own t.

    Args: x_hat, the render of z_0-hat, and x, the image, [b h w 3]; t, [b]; alpha_bar, [T] on the host; cap, the
      weight's largest value, None or 0 for none.
    Returns: [b].
    """
    return snr_weight(t, alpha_bar, cap) * mean_square(x_hat - x)
