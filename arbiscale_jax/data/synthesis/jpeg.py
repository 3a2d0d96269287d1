"""Computes what JPEG does to a picture, without making a bit stream: colour transform, cosine transform, quantisation.

The tables are those of ITU-T T.81, Annex K; scaling, rounding and chroma interpolation are those of libjpeg. Letters:
h, w are the sides of the picture; k, l are the frequencies in a block of 8 x 8 pixels.
"""

import jax.numpy as jnp
import numpy as np

_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
_ANGLES = (2 * np.arange(8) + 1) * np.arange(8)[:, None] * np.pi / 16
_DCT = np.float32(np.cos(_ANGLES) * np.sqrt(np.where(np.arange(8) == 0, 1, 2) / 8)[:, None])  # k n, orthonormal


def jpeg(x, quality, subsample):
    """Compresses and decodes a picture as libjpeg does, up to single levels.

    Args:
      x: [h w 3] in [0, 1]; the sides are multiples of 16.
      quality: in [1, 100]; it is rounded and may be traced.
      subsample: halve the chroma resolution (4:2:0) instead of keeping it (4:4:4); it may be traced.

    Returns:
      [h w 3] in [0, 1], of 256 levels.
    """
    quality = jnp.round(quality)
    scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    ycc = jnp.round(jnp.einsum("dc,hwc->hwd", _TO_YCC, jnp.round(x * 255), precision="highest"))  # h w 3
    luma, chroma = ycc[..., :1] - 128, ycc[..., 1:]  # both are centred at zero
    whole = _quantise(chroma, _CHROMA, scale)
    half = _double(_quantise(_halve(chroma), _CHROMA, scale))
    chroma = jnp.where(subsample, half, whole)
    ycc = jnp.concatenate([_quantise(luma, _LUMA, scale) + 128, chroma], axis=2)
    rgb = jnp.einsum("dc,hwc->hwd", _TO_RGB, ycc, precision="highest")
    return jnp.clip(jnp.round(rgb), 0, 255) / 255


def _quantise(x, table, scale):
    """Rounds the coefficients of each 8 x 8 block of x [h w c], centred at zero, to multiples of the scaled table."""
    step = jnp.clip(jnp.floor((table * scale + 50) / 100), 1, 255)[None, :, None, :, None]  # 1 k 1 l 1
    h, w, c = x.shape
    blocks = x.reshape(h // 8, 8, w // 8, 8, c)
    f = jnp.einsum("ka,iajbc,lb->ikjlc", _DCT, blocks, _DCT, precision="highest")
    f = jnp.round(f / step) * step
    blocks = jnp.einsum("ka,ikjlc,lb->iajbc", _DCT, f, _DCT, precision="highest")
    return jnp.clip(jnp.round(blocks.reshape(h, w, c)), -128, 127)


def _halve(x):
    """Returns the means of 2 x 2 pixels, rounded to whole numbers: [h w c] -> [h/2 w/2 c]."""
    h, w, c = x.shape
    return jnp.floor(x.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3)) + 0.5)


def _double(x):
    """Doubles both sides by linear interpolation, rounded to whole numbers (libjpeg calls it "fancy upsampling")."""
    for axis in (0, 1):
        last = x.shape[axis] - 1
        before = jnp.take(x, np.maximum(np.arange(last + 1) - 1, 0), axis=axis)
        after = jnp.take(x, np.minimum(np.arange(last + 1) + 1, last), axis=axis)
        pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * (last + 1), *x.shape[axis + 1 :])
    return jnp.round(x)
