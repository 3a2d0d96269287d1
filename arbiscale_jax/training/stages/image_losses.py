"""Computes losses of rendered pictures [b h w 3] in [-1, 1], one value per picture: pixels, coarse means, spectra."""

from functools import reduce

import jax.numpy as jnp
import numpy as np

from arbiscale_jax.errors import UserError

WINDOW = 32  # side, in pixels, of the windows of spectrum_loss, which begin every half side
FLOOR = 30.0  # added to the power; rounding to 8 bits makes a power of 11, 1/12 of the Hann window's sum of squares


def l1(x_hat, x):
    """Computes the mean absolute error [b] of pictures [b h w 3]."""
    return jnp.mean(jnp.abs(x_hat - x), axis=(1, 2, 3))


def coarse_l1(x_hat, x, side: int = 4):
    """Computes the mean absolute error [b] of pictures [b h w 3] after averaging over windows of side x side pixels.

    The windows begin at every pixel. The loss keeps colours and shading in their places, and leaves finer texture to
    other losses. h and w are at least `side`.
    """
    return l1(_means(x_hat, side), _means(x, side))


def _means(x, side: int):
    """Averages [b h w c] over the windows of side x side pixels at every place: [b h-side+1 w-side+1 c]."""
    h, w = (n - side + 1 for n in x.shape[1:3])
    x = reduce(jnp.add, (x[:, i : i + h] for i in range(side))) / side
    return reduce(jnp.add, (x[:, :, j : j + w] for j in range(side))) / side


def check_window(side: int) -> None:
    """Raises UserError if renders of `side` pixels are too small for `spectrum_loss`."""
    if side < WINDOW:
        raise UserError(
            f"The spectrum loss needs rendered windows of at least {WINDOW} pixels per side, got {side}; raise "
            "data.target_patch (or the windows of data.synthesis.variants), or set loss.spectrum_weight to 0."
        )


def spectrum_loss(x_hat, x):
    """Computes the distance [b] between the mean log power spectra of renders and of true images [b h w 3].

    The spectrum does not depend on places: the loss asks for as much detail of each frequency and direction as the
    truth has, and penalises stripes that the truth lacks. The pictures are made grey on the scale 0..255 and cut into
    windows of 32 x 32 pixels that begin every 16 pixels; from each the mean is subtracted, and it is multiplied by a
    Hann window. The spectrum log(|F|^2 + 30) is averaged over a picture's windows. The loss is the mean absolute
    difference over the half plane that rfft2 returns, in nats, computed in float32. Fewer than 16 pixels at the right
    and at the bottom may be left out.

    Raises:
      UserError: if a side is below 32 pixels.
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
    power = jnp.square(f.real) + jnp.square(f.imag)  # not abs(f), whose gradient at 0 is NaN
    return jnp.mean(jnp.log(power + FLOOR), axis=(1, 2))
