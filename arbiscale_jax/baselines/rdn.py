"""Defines the encoder of RDN, the residual dense network (Zhang et al. 2018), as LIIF uses it: without upsampling.

Images are in [-1, 1]. Axis letters: b is the batch, h and w are LR pixels, c channels.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from arbiscale_jax.models.layers import conv1x1, conv3x3

from .edsr import INIT

_conv, _fuse = partial(conv3x3, kernel_init=INIT), partial(conv1x1, kernel_init=INIT)


class DenseBlock(nn.Module):
    """Applies a residual dense block to x [b h w c] (Zhang et al. 2018, 3.2).

    Each convolution sees the input and the outputs of all convolutions before it; a 1x1 convolution fuses everything to
    c channels, which are added to the input.
    """

    convs: int  # number of 3x3 convolutions
    growth: int  # channels that each of them adds

    @nn.compact
    def __call__(self, x):  # b h w c
        seen = x
        for i in range(self.convs):
            new = nn.relu(_conv(self.growth, name=f"conv_{i}")(seen))
            seen = jnp.concatenate([seen, new], axis=-1)  # b h w c+(i+1)*growth
        return x + _fuse(x.shape[-1], name="fuse")(seen)


class RdnEncoder(nn.Module):
    """Maps an image [b h w 3] in [-1, 1] to features [b h w channels] (Zhang et al. 2018, 3.1).

    The outputs of all blocks are fused by a 1x1 and a 3x3 convolution and added to the first features. The defaults are
    those of the configuration "B" in LIIF, 22.0 million parameters.
    """

    channels: int = 64  # G0, channels of the features and between the blocks
    blocks: int = 16  # D, number of residual dense blocks
    convs: int = 8  # C, 3x3 convolutions in each block
    growth: int = 64  # G, channels that each of these adds

    @nn.compact
    def __call__(self, x):  # b h w 3
        first = _conv(self.channels, name="conv_in_0")(x)
        x, outputs = _conv(self.channels, name="conv_in_1")(first), []
        for i in range(self.blocks):
            x = DenseBlock(self.convs, self.growth, name=f"block_{i}")(x)
            outputs.append(x)
        x = _fuse(self.channels, name="fuse")(jnp.concatenate(outputs, axis=-1))
        return first + _conv(self.channels, name="conv_out")(x)
