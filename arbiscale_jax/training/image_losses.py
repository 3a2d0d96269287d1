"""Losses of rendered pictures [b h w 3] in [-1, 1], a value for each: per pixel, of coarse means, of spectra."""

import jax.numpy as jnp
import numpy as np

from arbiscale_jax.errors import UserError

WINDOW = 32  # pixels a side of a window of spectrum_loss; its neighbours start half of it further on
FLOOR = 30.0  # added to the power, of which rounding to 8 bits makes 11: 1/12 times the window's sum of squares


def l1(x_hat, x):
    """Computes the mean absolute error of pictures [b h w 3] -> [b]."""
    return jnp.mean(jnp.abs(x_hat - x), axis=(1, 2, 3))


def coarse_l1(x_hat, x, side: int = 4):
    """Computes the L1 of the means over all windows of side x side pixels: of [b h w 3], h and w >= side -> [b].

    It holds colours and shading where they are, and leaves finer texture to other losses.
    """
    return l1(_means(x_hat, side), _means(x, side))


def _means(x, side: int):
    """Averages windows of side x side at every place: [b h w c] -> [b h-side+1 w-side+1 c]."""
    h, w = (n - side + 1 for n in x.shape[1:3])
    x = sum(x[:, i : i + h] for i in range(side)) / side
    return sum(x[:, :, j : j + w] for j in range(side)) / side


def check_window(side: int) -> None:
    """Raises: UserError if renders of `side` pixels are too small for `spectrum_loss`."""
    if side < WINDOW:
        raise UserError(
            f"The spectrum loss needs rendered windows of at least {WINDOW} pixels a side, got {side}; raise "
            "data.target_patch (or the windows of data.synthesis.variants), or set loss.spectrum_weight to 0."
        )


def spectrum_loss(x_hat, x):
    """Computes how far the mean log power spectrum of each render is from that of its truth: [b h w 3] -> [b].

    The spectrum has no place: it asks for as much detail of each frequency and direction as the truth has, and
    punishes stripes that the truth lacks. Grey on the 0..255 scale, in windows of 32 x 32 pixels every 16, each less
    its mean, under a Hann window; log(|F|^2 + 30), averaged over a picture's windows; mean absolute difference over
    the half plane that rfft2 returns, in nats. What is left at the right and at the bottom, under 16 pixels, does not
    count. In float32.
    Raises: UserError if a side is below 32.
    """
    check_window(min(x.shape[1:3]))
    return jnp.mean(jnp.abs(_log_power(x_hat) - _log_power(x)), axis=(1, 2))


def _log_power(x):
    """Computes the mean over windows of the log power spectrum: [b h w 3] in [-1, 1] -> [b 32 17]."""
    half, hann = WINDOW // 2, np.hanning(WINDOW).astype(np.float32)
    b, m, n = len(x), x.shape[1] // half, x.shape[2] // half
    grey = 127.5 * jnp.mean(x.astype(jnp.float32), axis=3)[:, : m * half, : n * half]
    grey = grey.reshape(b, m, half, n, half)
    rows = jnp.concatenate([grey[:, :-1], grey[:, 1:]], axis=2)  # b m-1 32 n 16
    windows = jnp.concatenate([rows[:, :, :, :-1], rows[:, :, :, 1:]], axis=4)  # b m-1 32 n-1 32
    windows = windows.swapaxes(2, 3)  # b m-1 n-1 32 32
    windows = windows - jnp.mean(windows, axis=(3, 4), keepdims=True)
    f = jnp.fft.rfft2(windows * np.outer(hann, hann)[None, None, None])
    power = jnp.square(f.real) + jnp.square(f.imag)  # not abs, whose gradient at 0 is not a number
    return jnp.mean(jnp.log(power + FLOOR), axis=(1, 2))
