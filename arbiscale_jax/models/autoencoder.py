"""Defines the encoder E, and D, the convolutional half of the implicit neural decoder (paper 4.2, Fig. 3)."""

import jax.numpy as jnp
from flax import linen as nn

from .layers import Attention, conv1x1, conv3x3, make_norm, with_remat

EPSILON = 1e-6  # added to the variance in the norms of the auto-encoder


class ResBlock(nn.Module):
    """Applies a residual block: [b h w c] -> [b h w features].

    Its branch is norm, SiLU and a 3x3 convolution, twice. The shortcut is a 1x1 convolution if the channels change.
    """

    features: int  # output channels
    num_groups: int  # groups of GroupNorm
    norm: str = "group"  # one of layers.NORMS
    dtype: jnp.dtype = jnp.float32  # compute type; parameters stay float32

    @nn.compact
    def __call__(self, x):  # b h w c
        h = nn.silu(make_norm(self.norm, self.num_groups, EPSILON, self.dtype, "norm1")(x))
        h = conv3x3(self.features, dtype=self.dtype, name="conv1")(h)
        h = nn.silu(make_norm(self.norm, self.num_groups, EPSILON, self.dtype, "norm2")(h))
        h = conv3x3(self.features, dtype=self.dtype, name="conv2")(h)
        if x.shape[-1] != self.features:
            x = conv1x1(self.features, dtype=self.dtype, name="shortcut")(x)
        return x + h  # b h w features


class _Tower(nn.Module):
    """Defines what E and D share: the fields, residual blocks, single-head attention and the middle block."""

    z_channels: int  # c, channels of the latent
    ch: int = 128  # channels at the finest level
    ch_mult: tuple[int, ...] = (1, 2, 4)  # channels of each level divided by ch, the finest first
    num_res_blocks: int = 2  # residual blocks per level of E; D has one more
    attn_levels: tuple[int, ...] = ()  # levels with self-attention after each residual block; 0 is the finest
    mid_attention: bool = True  # self-attention in the middle block
    num_groups: int = 32  # groups of GroupNorm
    norm: str = "group"  # one of layers.NORMS
    remat: bool = False  # recompute each block in the backward pass instead of keeping its activations
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the last layer stay float32

    def res(self, x, features, name):
        """Applies a residual block: [b h w c] -> [b h w features]."""
        return with_remat(ResBlock, self.remat)(features, self.num_groups, self.norm, dtype=self.dtype, name=name)(x)

    def attention(self, x, name):
        """Applies self-attention to x [b h w c]."""
        block = with_remat(Attention, self.remat)
        return block(1, self.num_groups, EPSILON, norm=self.norm, dtype=self.dtype, name=name)(x)

    def middle(self, x):
        """Applies the middle block to x [b h w c]: a residual block, perhaps attention, a residual block."""
        x = self.res(x, x.shape[-1], "mid_block_1")
        if self.mid_attention:
            x = self.attention(x, "mid_attn")
        return self.res(x, x.shape[-1], "mid_block_2")


class ConvEncoder(_Tower):
    """Maps an image [b H W 3] in [-1, 1] to a latent [b H/f W/f c], or to 2c channels with double_z."""

    double_z: bool = False  # give the mean and the log-variance instead of the mean alone

    @nn.compact
    def __call__(self, x):
        x = conv3x3(self.ch, dtype=self.dtype, name="conv_in")(x.astype(self.dtype))
        for level, mult in enumerate(self.ch_mult):
            for block in range(self.num_res_blocks):
                x = self.res(x, self.ch * mult, f"down_{level}_block_{block}")
                if level in self.attn_levels:
                    x = self.attention(x, f"down_{level}_attn_{block}")
            if level < len(self.ch_mult) - 1:
                x = nn.Conv(
                    x.shape[-1], (3, 3), 2, ((0, 1), (0, 1)), dtype=self.dtype, name=f"down_{level}_downsample"
                )(x)
        x = self.middle(x)
        x = nn.silu(make_norm(self.norm, self.num_groups, EPSILON, self.dtype, "norm_out")(x))
        features = self.z_channels * (2 if self.double_z else 1)
        x = conv3x3(features, name="conv_out")(x.astype(jnp.float32))
        return conv1x1(features, name="quant_conv")(x)  # b H/f W/f c or 2c


class PointwiseDecoder(nn.Module):
    """Maps a latent [b h w c] to features [b h w c] by a 1x1 convolution alone, so that f_theta sees single cells.

    It takes the place of D in the ablation of the decoder ("MLP" in the paper's Table 6).
    """

    z_channels: int  # c, channels of the latent

    @nn.compact
    def __call__(self, z):
        return conv1x1(self.z_channels, name="post_quant_conv")(z)


class ConvDecoder(_Tower):
    """Maps a latent [b h w c] to features [b h w ch * ch_mult[0]]; it mirrors the encoder, but upsamples nothing."""

    @nn.compact
    def __call__(self, z):
        x = conv1x1(self.z_channels, name="post_quant_conv")(z)
        x = conv3x3(self.ch * self.ch_mult[-1], dtype=self.dtype, name="conv_in")(x.astype(self.dtype))
        x = self.middle(x)
        for level in reversed(range(len(self.ch_mult))):
            for block in range(self.num_res_blocks + 1):
                x = self.res(x, self.ch * self.ch_mult[level], f"up_{level}_block_{block}")
                if level in self.attn_levels:
                    x = self.attention(x, f"up_{level}_attn_{block}")
        return x
