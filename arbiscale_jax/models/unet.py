"""Defines the denoising U-Net eps_theta of LDM, with the architecture of ADM, as in the reference implementation."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from .label_embedding import LabelEmbedding
from .layers import Attention, conv1x1, conv3x3, make_norm, with_remat
from .resize import reflect

EPSILON = 1e-5  # added to the variance in the norms of the U-Net


def time_embedding(t, features: int, max_period: float = 10_000.0):
    """Embeds times t [b] as cos and sin at features / 2 frequencies from 1 down to 1 / max_period -> [b features]."""
    half = features // 2
    freqs = jnp.exp(-jnp.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = t.astype(jnp.float32)[:, None] * freqs[None]
    out = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return jnp.pad(out, ((0, 0), (0, features % 2)))


def upsample(x):
    """Doubles both sides by repeating pixels: [b h w c] -> [b 2h 2w c]."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def dropout(x, keys, rate: float):
    """Sets a share `rate` of x [b ...] to zero and scales up the rest; example i draws from keys[i] alone."""
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0)


class UNetResBlock(nn.Module):
    """Applies a residual block conditioned on the time embedding [b d]: [b h w c] -> [b h' w' features]."""

    features: int  # output channels
    num_groups: int  # groups of GroupNorm
    scale_shift: bool = False  # the time acts as norm(h) * (1 + scale) + shift instead of being added
    resample: str = ""  # "", "up" or "down": double or halve both sides of both branches, after norm and SiLU
    dropout: float = 0.0  # dropout rate
    norm: str = "group"  # one of layers.NORMS
    dtype: jnp.dtype = jnp.float32  # compute type; parameters stay float32

    @nn.compact
    def __call__(self, x, emb, drop_keys=None):  # b h w c; b d; b
        h = nn.silu(make_norm(self.norm, self.num_groups, EPSILON, self.dtype, "norm1")(x))
        if self.resample == "up":
            h, x = upsample(h), upsample(x)
        elif self.resample == "down":
            h, x = (nn.avg_pool(a, (2, 2), (2, 2)) for a in (h, x))
        h = conv3x3(self.features, dtype=self.dtype, name="conv1")(h)
        emb = nn.Dense(self.features * (1 + self.scale_shift), dtype=self.dtype, name="emb")(nn.silu(emb))[
            :, None, None
        ]
        norm2 = make_norm(self.norm, self.num_groups, EPSILON, self.dtype, "norm2")
        if self.scale_shift:
            scale, shift = jnp.split(emb, 2, axis=-1)
            h = norm2(h) * (1 + scale) + shift
        else:
            h = norm2(h + emb)
        h = nn.silu(h)
        if drop_keys is not None and self.dropout:
            h = dropout(h, drop_keys, self.dropout)
        h = conv3x3(self.features, kernel_init=nn.initializers.zeros_init(), dtype=self.dtype, name="conv2")(h)
        if x.shape[-1] != self.features:
            x = conv1x1(self.features, dtype=self.dtype, name="shortcut")(x)
        return x + h


class UNet(nn.Module):
    """Predicts eps from z_t of any size, the time and an optional condition that is concatenated to z_t (paper 4.3)."""

    out_channels: int  # channels of eps
    model_channels: int = 160  # channels at the finest level
    channel_mult: tuple[int, ...] = (1, 2, 2, 4)  # channels of each level divided by model_channels
    num_res_blocks: int | tuple[int, ...] = 2  # residual blocks per level; a tuple has one number for each level
    attention_rates: tuple[int, ...] = (16, 8)  # downsampling rates of the levels with self-attention
    num_heads: int = 0  # number of attention heads; used if num_head_channels is 0
    num_head_channels: int = 32  # channels per attention head
    scale_shift: bool = False  # see UNetResBlock
    resblock_updown: bool = False  # residual blocks instead of convolutions change the resolution
    dropout: float = 0.0  # dropout rate in the residual blocks
    num_groups: int = 32  # groups of GroupNorm
    norm: str = "group"  # one of layers.NORMS
    mid_attention: bool = True  # self-attention in the middle block
    styles: int = 0  # number of styles in labels, see LabelEmbedding
    words: int = 0  # number of words in labels; without styles and words the network knows no labels
    remat: bool = False  # recompute each block in the backward pass instead of keeping its activations
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the last layer stay float32

    def blocks_of(self, level: int) -> int:
        """Returns the number of residual blocks at a level."""
        return self.num_res_blocks if isinstance(self.num_res_blocks, int) else self.num_res_blocks[level]

    def res(self, x, emb, features, drop_keys, name, resample=""):
        """Applies a residual block, which `resample` may make change the size: x [b h w c] -> [b h' w' features]."""
        block = with_remat(UNetResBlock, self.remat)(
            features, self.num_groups, self.scale_shift, resample, self.dropout, self.norm, dtype=self.dtype, name=name
        )
        if drop_keys is not None:
            drop_keys = jax.vmap(jax.random.fold_in, (0, None))(drop_keys, np.uint32(zlib.crc32(name.encode())))
        return block(x, emb, drop_keys)

    def attention(self, x, name):
        """Applies self-attention to x [b h w c]."""
        heads = x.shape[-1] // self.num_head_channels if self.num_head_channels else self.num_heads
        block = with_remat(Attention, self.remat)
        options = dict(zero_init=True, norm=self.norm, dtype=self.dtype, name=name)
        return block(heads, self.num_groups, EPSILON, **options)(x)

    @nn.compact
    def __call__(self, z_t, t, c=None, drop_keys=None, label=None):
        """Predicts eps.

        Args:
          z_t: noisy latent, [b h w c].
          t: integers in [0, T), [b].
          c: condition, [b h w c'], or None.
          drop_keys: one random key per example, [b], for dropout; None is no dropout.
          label: numbers of the style and the words of each example, [b 1 + n], for a network that knows labels; 0, and
            None, stand for nothing.

        Returns:
          eps_hat, float32 [b h w out_channels].
        """
        size = z_t.shape[1:3]
        x = z_t if c is None else jnp.concatenate([z_t, c], axis=-1)
        x = pad_to_multiple(x, 2 ** (len(self.channel_mult) - 1)).astype(self.dtype)

        width = 4 * self.model_channels
        emb = time_embedding(t, self.model_channels).astype(self.dtype)
        emb = nn.Dense(width, dtype=self.dtype, name="time_embed_0")(emb)
        emb = nn.Dense(width, dtype=self.dtype, name="time_embed_1")(nn.silu(emb))
        if self.styles or self.words:
            label = jnp.zeros((len(z_t), 2), jnp.int32) if label is None else label
            tables = (self.styles, self.words, self.model_channels, width)
            emb += LabelEmbedding(*tables, dtype=self.dtype, name="label_embed")(label)

        x = conv3x3(self.model_channels, dtype=self.dtype, name="conv_in")(x)
        skips = [x]
        last = len(self.channel_mult) - 1
        for level, mult in enumerate(self.channel_mult):
            for block in range(self.blocks_of(level)):
                x = self.res(x, emb, self.model_channels * mult, drop_keys, f"down_{level}_block_{block}")
                if 2**level in self.attention_rates:
                    x = self.attention(x, f"down_{level}_attn_{block}")
                skips.append(x)
            if level < last:
                name = f"down_{level}_downsample"
                if self.resblock_updown:
                    x = self.res(x, emb, x.shape[-1], drop_keys, name, "down")
                else:
                    x = nn.Conv(x.shape[-1], (3, 3), 2, ((1, 1), (1, 1)), dtype=self.dtype, name=name)(x)
                skips.append(x)

        x = self.res(x, emb, x.shape[-1], drop_keys, "mid_block_1")
        if self.mid_attention:
            x = self.attention(x, "mid_attn")
        x = self.res(x, emb, x.shape[-1], drop_keys, "mid_block_2")

        for level in reversed(range(last + 1)):
            features = self.model_channels * self.channel_mult[level]
            for block in range(self.blocks_of(level) + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = self.res(x, emb, features, drop_keys, f"up_{level}_block_{block}")
                if 2**level in self.attention_rates:
                    x = self.attention(x, f"up_{level}_attn_{block}")
            if level > 0:
                name = f"up_{level}_upsample"
                if self.resblock_updown:
                    x = self.res(x, emb, x.shape[-1], drop_keys, name, "up")
                else:
                    x = conv3x3(x.shape[-1], dtype=self.dtype, name=name)(upsample(x))

        x = nn.silu(make_norm(self.norm, self.num_groups, EPSILON, jnp.float32, "norm_out")(x))
        x = conv3x3(self.out_channels, kernel_init=nn.initializers.zeros_init(), name="conv_out")(x)
        return x[:, : size[0], : size[1]]


def pad_to_multiple(x, multiple: int):
    """Pads both sides of [b h w c] to a multiple, at the bottom and the right, as `reflect` does."""
    for dim in (1, 2):
        x = reflect(x, dim, 0, -x.shape[dim] % multiple)
    return x
