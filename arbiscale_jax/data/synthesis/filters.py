"""Resampling as a product with filter matrices: shapes are fixed while scales and positions vary.

Kernels and borders are Pillow's: cubic with a = -0.5, widened where the picture shrinks, rows that lose weight beyond
the border scaled to sum to one. Letters: h, w sides of the picture that is read, m, n of the one that is made.
"""

import jax.numpy as jnp
import numpy as np

CUBIC, LANCZOS, BOX, TRIANGLE, GAUSSIAN, SINC = range(6)
SINC_RADIUS = 6.0  # zeros of the ringing kernel on each side, under a Hann window


def grid(count: int, pitch, origin=0.0):
    """Returns the positions of `count` samples, `pitch` source pixels apart, whose first pixel begins at `origin`.

    Args: origin, in source pixels from the picture's edge; pitch and origin may be traced.
    Returns: (k + 1/2) pitch + origin - 1/2 of sample k, in source pixels from the centre of the first: [count].
    """
    return (np.arange(count, dtype=np.float32) + 0.5) * pitch + (origin - 0.5)


def filter_matrix(positions, pitch, kernel, size: int, *, sigma=1.0):
    """Returns the weights with which `size` source pixels enter each sample: [m size], rows sum to one.

    Args: positions, of the samples, in source pixels from the centre of the first, [m]; one beyond the border is moved
      there; pitch, source pixels per sample; the kernel widens where it is above 1; kernel, one of this module's six
      numbers, traced or not; sigma, standard deviation of GAUSSIAN in source pixels, at least 0.2 (pitch is not used).
    BOX is the mean over the sample's area: Pillow's at whole factors, without the shift of Pillow's at others. SINC
    passes frequencies below 1 / (2 pitch) and rings.
    """
    positions = jnp.clip(jnp.asarray(positions, jnp.float32), -0.5, size - 0.5)
    apart = jnp.abs(positions[:, None] - np.arange(size, dtype=np.float32))  # m size
    x = apart / jnp.maximum(pitch, 1.0)
    formulas = (
        lambda: _cubic(x),
        lambda: _lanczos(x),
        lambda: jnp.clip((pitch + 1) / 2 - apart, 0, jnp.minimum(pitch, 1.0)),
        lambda: jnp.maximum(1 - x, 0),
        lambda: jnp.exp(-0.5 * jnp.square(apart / sigma)),
        lambda: _sinc(x),
    )
    if isinstance(kernel, int):
        weights = formulas[kernel]()
    else:
        weights = jnp.select([kernel == number for number in range(SINC)], [f() for f in formulas[:-1]], formulas[-1]())
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def resample(x, rows, cols):
    """Applies filter matrices, rows [m h] and cols [n w], to a picture x [h w c] -> [m n c], in full precision."""
    y = jnp.einsum("mh,hwc->mwc", rows, x, precision="highest")
    return jnp.einsum("nw,mwc->mnc", cols, y, precision="highest")


def _cubic(x):
    """Keys' kernel with a = -0.5, exactly 0 and 1 at whole numbers."""
    near, far = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


def _lanczos(x):
    return jnp.where(x < 3, jnp.sinc(x) * jnp.sinc(x / 3), 0.0)


def _sinc(x):
    window = jnp.square(jnp.cos(0.5 * np.pi * x / SINC_RADIUS))
    return jnp.where(x < SINC_RADIUS, jnp.sinc(x) * window, 0.0)
