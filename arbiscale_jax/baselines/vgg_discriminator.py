"""Defines the discriminator of ESRGAN (Wang et al. 2018, sections 3.2 and 4.1), which has the form of a VGG network.

It comes from SRGAN (Ledig et al. 2017, figure 4); the 4x4 kernels that halve the resolution and the dense layer of 100
channels are those of the authors' training code. That network has BatchNorm. Here it is GroupNorm, with the same number
of parameters: a train step of this library is a pure function without running statistics, and with GroupNorm a logit
depends on its own image alone. So true and generated images may share a batch, and a batch may be divided over devices
or micro-batches.
"""

import math

import jax.numpy as jnp
from flax import linen as nn

from arbiscale_jax.models.layers import GroupNorm, conv3x3

SLOPE = 0.2  # slope of LeakyReLU below zero
HALVINGS = 5  # how often the resolution is halved
MAX_WIDTH = 8  # largest number of channels, divided by ch
GROUPS = 8  # groups of GroupNorm; fewer if they do not divide the channels

_init = nn.initializers.he_normal()


class VGGDiscriminator(nn.Module):
    """Judges whole images [b H W 3] in about [-1, 1] and gives one logit for each, [b].

    The sides are multiples of 32 pixels; the paper trains on crops of 128 x 128. The first dense layer sees all
    positions, so weights made for one size do not fit another.

    Raises:
      ValueError: if a side is not a multiple of 32 pixels.
    """

    ch: int = 64  # channels at the finest level
    hidden: int = 100  # width of the dense layer before the logit
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the last layer stay float32

    def norm(self, x, name: str):
        """Applies GroupNorm and LeakyReLU to x [b h w c]."""
        return nn.leaky_relu(GroupNorm(math.gcd(x.shape[-1], GROUPS), 1e-5, dtype=self.dtype, name=name)(x), SLOPE)

    @nn.compact
    def __call__(self, x):  # b H W 3, about [-1, 1]
        b, height, width, _ = x.shape
        if height % 2**HALVINGS or width % 2**HALVINGS or not height * width:
            raise ValueError(f"The sides must be multiples of {2**HALVINGS} pixels, got {height} x {width}.")
        for i in range(HALVINGS):
            features, options = self.ch * min(2**i, MAX_WIDTH), {"dtype": self.dtype, "kernel_init": _init}
            x = conv3x3(features, use_bias=i == 0, name=f"conv_{i}", **options)(x)
            x = self.norm(x, f"norm_{i}") if i else nn.leaky_relu(x, SLOPE)  # the first layer has no norm
            down = nn.Conv(features, (4, 4), 2, ((1, 1), (1, 1)), use_bias=False, name=f"down_{i}", **options)
            x = self.norm(down(x), f"down_norm_{i}")  # b h/2 w/2 features
        x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=_init, name="dense")(x.reshape(b, -1))
        x = nn.leaky_relu(x, SLOPE).astype(jnp.float32)
        return nn.Dense(1, kernel_init=_init, name="dense_out")(x)[:, 0]  # b, logits
