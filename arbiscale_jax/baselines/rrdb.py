"""Defines the generator of ESRGAN (Wang et al. 2018, section 3.1), a network of residual-in-residual dense blocks.

Real-ESRGAN (Wang et al. 2021) uses the same network for x4. Axis letters: b batch, h w space, c channels.
"""

import jax.numpy as jnp
from flax import linen as nn

from arbiscale_jax.models.layers import conv3x3

SCALE = 4  # output pixels per input pixel along each side
SLOPE = 0.2  # slope of LeakyReLU below zero
RESIDUAL_SCALE = 0.2  # factor of every residual branch (section 3.1, beta in figure 4)
DENSE_BLOCKS, DENSE_CONVS = 3, 5  # dense blocks per RRDB, and convolutions per dense block (figure 4)

# section 3.1 asks for a small initialization: 0.1 times the deviation of He et al. 2015
_small_init = nn.initializers.variance_scaling(2 * 0.1**2, "fan_in", "normal")


class DenseBlock(nn.Module):
    """Adds to x [b h w c] the scaled output of five convolutions, each of which sees all maps before it (figure 4)."""

    growth: int = 32  # channels that each convolution but the last appends
    dtype: jnp.dtype = jnp.float32  # compute type; parameters stay float32

    @nn.compact
    def __call__(self, x):  # b h w c
        features, maps, y = x.shape[-1], x, x
        for i in range(1, DENSE_CONVS + 1):
            width = self.growth if i < DENSE_CONVS else features
            y = conv3x3(width, dtype=self.dtype, kernel_init=_small_init, name=f"conv_{i}")(maps)
            if i < DENSE_CONVS:
                y = nn.leaky_relu(y, SLOPE)
                maps = jnp.concatenate([maps, y], axis=-1)  # b h w c+i*growth
        return x + RESIDUAL_SCALE * y


class RRDB(nn.Module):
    """Adds to x [b h w c] the scaled output of three dense blocks (figure 4)."""

    growth: int = 32  # channels that each convolution of a dense block appends
    dtype: jnp.dtype = jnp.float32  # compute type; parameters stay float32

    @nn.compact
    def __call__(self, x):  # b h w c
        y = x
        for i in range(1, DENSE_BLOCKS + 1):
            y = DenseBlock(self.growth, self.dtype, name=f"dense_{i}")(y)
        return x + RESIDUAL_SCALE * y


class RRDBNet(nn.Module):
    """Enlarges images [b h w 3] in [-1, 1] four times to [b 4h 4w 3] (section 3.1, figures 3 and 4).

    The authors' weights work on [0, 1]. The images are mapped to that range and back inside, because the zeros beyond
    the border are black there. The output is not clipped and may leave [-1, 1] a little.
    """

    features: int = 64  # channels between the blocks
    growth: int = 32  # channels that each convolution of a dense block appends
    blocks: int = 23  # number of residual-in-residual dense blocks
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the last layer stay float32

    def conv(self, x, name: str):
        """Applies a 3x3 convolution: [b h w c] -> [b h w features]."""
        return conv3x3(self.features, dtype=self.dtype, name=name)(x)

    @nn.compact
    def __call__(self, x):  # b h w 3, [-1, 1]
        first = self.conv((x + 1) / 2, "conv_first")
        y = first
        for i in range(self.blocks):
            y = RRDB(self.growth, self.dtype, name=f"block_{i}")(y)
        x = first + self.conv(y, "conv_trunk")
        for i in (1, 2):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)  # b 2h 2w c, nearest
            x = nn.leaky_relu(self.conv(x, f"conv_up_{i}"), SLOPE)
        x = nn.leaky_relu(self.conv(x, "conv_hr"), SLOPE)
        return 2 * conv3x3(3, name="conv_last")(x.astype(jnp.float32)) - 1  # b 4h 4w 3
