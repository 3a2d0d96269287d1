"""Resamples pictures by products with filter matrices, whose shapes stay fixed while scales and positions vary.

Kernels and borders are those of Pillow: the cubic kernel has a = -0.5, kernels widen when the picture shrinks, and
weights beyond the border are left out before each row is divided by its sum. Letters: h, w are the sides of the picture
that is read, m, n those of the picture that is made.
"""

import jax
import jax.numpy as jnp
import numpy as np

CUBIC, LANCZOS, BOX, TRIANGLE, GAUSSIAN, SINC = range(6)
SINC_RADIUS = 6.0  # number of zeros of the ringing kernel on each side, inside its Hann window


def grid(count: int, pitch, origin=0.0):
    """Returns the positions of `count` evenly spaced samples.

    Args:
      count: number of samples.
      pitch: distance between two samples, in source pixels; it may be traced.
      origin: where the area of the first sample begins, in source pixels from the edge of the picture; it may be
        traced.

    Returns:
      (k + 1/2) pitch + origin - 1/2 for sample k, in source pixels from the centre of the first pixel: [count].
    """
    return (np.arange(count, dtype=np.float32) + 0.5) * pitch + (origin - 0.5)


def filter_matrix(positions, pitch, kernel, size: int, *, sigma: jax.Array | float = 1.0):
    """Returns the weights of the source pixels in each sample.

    BOX is the mean over the area of a sample: it equals Pillow's at whole factors, and at others it lacks the shift of
    Pillow's. SINC passes frequencies below 1 / (2 pitch) and makes ringing.

    Args:
      positions: positions of the samples in source pixels from the centre of the first pixel, [m]; a position beyond
        the border is moved to the border.
      pitch: source pixels per sample; the kernel widens if it is above 1.
      kernel: one of the six numbers of this module; it may be traced.
      size: number of source pixels.
      sigma: standard deviation of GAUSSIAN in source pixels, at least 0.2; GAUSSIAN does not use pitch.

    Returns:
      The weights [m size]; each row sums to 1.
    """
    positions = jnp.clip(jnp.asarray(positions, jnp.float32), -0.5, size - 0.5)
    apart = jnp.abs(positions[:, None] - np.arange(size, dtype=np.float32)[None])  # m size
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
    """Applies filter matrices rows [m h] and cols [n w] to a picture x [h w c] -> [m n c], in full precision."""
    y = jnp.einsum("mh,hwc->mwc", rows, x, precision="highest")
    return jnp.einsum("nw,mwc->mnc", cols, y, precision="highest")


def _cubic(x):
    """Returns the kernel of Keys with a = -0.5 at distances x >= 0; it is exactly 0 or 1 at whole numbers."""
    near, far = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


def _lanczos(x):
    """Returns the Lanczos kernel of radius 3 at distances x >= 0."""
    return jnp.where(x < 3, jnp.sinc(x) * jnp.sinc(x / 3), 0.0)


def _sinc(x):
    """Returns the sinc kernel under a Hann window at distances x >= 0."""
    window = jnp.square(jnp.cos(0.5 * np.pi * x / SINC_RADIUS))
    return jnp.where(x < SINC_RADIUS, jnp.sinc(x) * window, 0.0)
