"""Defines the U-Net of SR3 (Saharia et al. 2021, section 2.3), which denoises an image given a low-resolution one.

Checkpoints that people have are those of the public PyTorch implementation
(Janspiry/Image-Super-Resolution-via-Iterative-Refinement), so that is followed where it differs from the paper: its
residual blocks are those of DDPM instead of BigGAN, the noise level is only added to the features, without a gain, it
is embedded without the factor 5000 of WaveGrad, and there is self-attention at 16 x 16 pixels. The paper's model for
16 -> 128 has 550 million parameters, and this one has 97.8 million.

Axis letters: b is the batch, h and w are space, c channels.
"""

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from arbiscale_jax.models import interpolate
from arbiscale_jax.models.layers import GroupNorm, attend, conv1x1, conv3x3
from arbiscale_jax.models.unet import dropout, upsample

EPSILON = 1e-5  # added to the variance in the norms
MAX_PERIOD = 10_000.0  # of the embedding of the noise level

orthogonal = nn.initializers.orthogonal()  # where the public implementation starts all its layers


def upsampled(lr, size: tuple[int, int]):
    """Returns SR3's condition, the low-resolution image enlarged with the bicubic kernel of Pillow (section 2).

    Args:
      lr: images in [-1, 1], [b h w c].
      size: (height, width) of the result.

    Returns:
      Images in [-1, 1], [b height width c].
    """
    return jnp.clip(interpolate(lr, size, "bicubic"), -1, 1)


def noise_level_embedding(noise_level, features: int):
    """Embeds noise levels [b] in (0, 1] as sin and cos at features / 2 frequencies -> [b features]."""
    half = features // 2
    frequencies = jnp.exp(-jnp.log(MAX_PERIOD) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = noise_level.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class NoiseLevelBlock(nn.Module):
    """Applies a residual block to which the embedded noise level [b d] is added: [b h w c] -> [b h w features]."""

    features: int  # output channels
    num_groups: int  # groups of GroupNorm
    dropout: float = 0.0  # dropout rate before the second convolution

    @nn.compact
    def __call__(self, x, emb, drop_keys=None):  # b h w c; b d; b
        h = nn.silu(GroupNorm(self.num_groups, EPSILON, name="norm1")(x))
        h = conv3x3(self.features, kernel_init=orthogonal, name="conv1")(h)
        h += nn.Dense(self.features, kernel_init=orthogonal, name="emb")(emb)[:, None, None]
        h = nn.silu(GroupNorm(self.num_groups, EPSILON, name="norm2")(h))
        if drop_keys is not None and self.dropout:
            h = dropout(h, drop_keys, self.dropout)
        h = conv3x3(self.features, kernel_init=orthogonal, name="conv2")(h)
        if x.shape[-1] != self.features:
            x = conv1x1(self.features, kernel_init=orthogonal, name="shortcut")(x)
        return x + h


class SingleHeadAttention(nn.Module):
    """Adds self-attention with one head over all positions to x [b h w c]; the projection to q, k, v has no bias."""

    num_groups: int  # groups of GroupNorm

    @nn.compact
    def __call__(self, x):
        b, h, w, c = x.shape
        y = GroupNorm(self.num_groups, EPSILON, name="norm")(x)
        y = conv1x1(3 * c, use_bias=False, kernel_init=orthogonal, name="qkv")(y)
        q, k, v = jnp.split(y.reshape(b, h * w, 1, 3 * c), 3, axis=-1)  # b n 1 c
        y = attend(q, k, v).reshape(b, h, w, c)
        return x + conv1x1(c, kernel_init=orthogonal, name="proj_out")(y)


class SR3UNet(nn.Module):
    """Predicts eps from a noisy image, its noise level and an image of the same size as the condition (Eq. 6).

    The defaults are those of the public implementation for 16 -> 128 pixels, whose level 3 has 16 x 16 pixels.
    """

    out_channels: int = 3  # channels of eps
    channels: int = 64  # channels at the finest level
    channel_mult: tuple[int, ...] = (1, 2, 4, 8, 8)  # channels of each level divided by `channels`
    num_res_blocks: int = 2  # residual blocks per level
    attention_levels: tuple[int, ...] = (3,)  # levels with self-attention; 0 is the finest
    num_groups: int = 32  # groups of GroupNorm
    dropout: float = 0.2  # dropout rate in the residual blocks

    def block(self, x, emb, features, drop_keys, name):
        """Applies a residual block: x [b h w c] -> [b h w features]."""
        if drop_keys is not None:
            drop_keys = jax.vmap(jax.random.fold_in, (0, None))(drop_keys, np.uint32(zlib.crc32(name.encode())))
        return NoiseLevelBlock(features, self.num_groups, self.dropout, name=name)(x, emb, drop_keys)

    @nn.compact
    def __call__(self, x_t, noise_level, condition, drop_keys=None, enlarge: Callable | None = None):
        """Predicts eps.

        Args:
          x_t: noisy images, [b h w c].
          noise_level: sqrt(alpha_bar) in (0, 1], [b].
          condition: images in [-1, 1], see `upsampled`, [b h w c'].
          drop_keys: one random key per example, [b], for dropout; None is no dropout.
          enlarge: function (features [b h w c], size, level) -> [b *size c] that takes features from `level` to the
            size of the next finer one; it runs inside this module and may make submodules. None is SR3's, which repeats
            pixels and convolves.

        Returns:
          eps_hat, [b h w out_channels].

        Raises:
          ValueError: with SR3's own `enlarge`, if a side of x_t is not a multiple of 2^(number of levels - 1).
        """
        last = len(self.channel_mult) - 1
        if enlarge is None and any(side % 2**last for side in x_t.shape[1:3]):
            raise ValueError(f"SR3 needs sides that are multiples of {2**last}, got {x_t.shape[1:3]}.")
        emb = noise_level_embedding(noise_level, self.channels)
        emb = nn.Dense(4 * self.channels, kernel_init=orthogonal, name="noise_embed_0")(emb)
        emb = nn.Dense(self.channels, kernel_init=orthogonal, name="noise_embed_1")(nn.silu(emb))

        x = jnp.concatenate([condition, x_t], axis=-1)
        x = conv3x3(self.channels, kernel_init=orthogonal, name="conv_in")(x)
        skips = [x]
        for level, mult in enumerate(self.channel_mult):
            for i in range(self.num_res_blocks):
                x = self.block(x, emb, self.channels * mult, drop_keys, f"down_{level}_block_{i}")
                if level in self.attention_levels:
                    x = SingleHeadAttention(self.num_groups, name=f"down_{level}_attn_{i}")(x)
                skips.append(x)
            if level < last:
                name = f"down_{level}_downsample"
                x = conv3x3(x.shape[-1], strides=(2, 2), kernel_init=orthogonal, name=name)(x)
                skips.append(x)

        x = self.block(x, emb, x.shape[-1], drop_keys, "mid_block_1")
        x = SingleHeadAttention(self.num_groups, name="mid_attn")(x)
        x = self.block(x, emb, x.shape[-1], drop_keys, "mid_block_2")

        for level, mult in reversed(list(enumerate(self.channel_mult))):
            for i in range(self.num_res_blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = self.block(x, emb, self.channels * mult, drop_keys, f"up_{level}_block_{i}")
                if level in self.attention_levels:
                    x = SingleHeadAttention(self.num_groups, name=f"up_{level}_attn_{i}")(x)
            if level and enlarge is not None:
                x = enlarge(x, skips[-1].shape[1:3], level)
            elif level:
                x = conv3x3(x.shape[-1], kernel_init=orthogonal, name=f"up_{level}_upsample")(upsample(x))
        x = nn.silu(GroupNorm(self.num_groups, EPSILON, name="norm_out")(x))
        return conv3x3(self.out_channels, kernel_init=orthogonal, name="conv_out")(x)
