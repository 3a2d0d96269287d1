"""Defines networks without statistics over space: an auto-encoder based on a linear code, and a U-Net to restore.

A window of a picture gives the same values as the whole picture, except near its edges, as far as the networks see
(`reach`). E and D are each a linear map of f x f patches (principal components, see `linear_code`) plus a correction by
a network that starts near zero, so the render is faithful from the start. The last layer of D is rearranged into f x f
sub-cells per latent cell (Shi et al. 2016); no convolution upsamples. Axis letters: b is the batch, h and w are latent
cells, H and W sub-cells or pixels, c channels, f the spatial factor.
"""

import jax.numpy as jnp
from flax import linen as nn

from .layers import conv1x1, conv3x3, make_norm, with_remat
from .unet import pad_to_multiple, time_embedding

EPSILON = 1e-6  # added to the variance or mean square in the norms
COLOURS = 3  # the first features of a sub-cell are its colour


def _init(gain: float):
    """Returns an initializer that draws truncated normal numbers of variance gain / fan-in."""
    return nn.initializers.variance_scaling(gain, "fan_in", "truncated_normal")


def _quiet(gain: float, features: int):
    """Returns `_init`, but with zeros for outputs that add to colours: the first three of every `features` channels."""

    def init(key, shape, dtype=jnp.float32):
        return _init(gain)(key, shape, dtype) * (jnp.arange(shape[-1]) % features >= COLOURS).reshape(
            (1,) * (len(shape) - 1) + (-1,)
        )

    return init


def space_to_depth(x, f: int):
    """Rearranges f x f pixels into channels: [b H W c] -> [b H//f W//f f*f*c]; the remainder at the end is cut off."""
    b, h, w, c = x.shape[0], x.shape[1] // f, x.shape[2] // f, x.shape[3]
    x = x[:, : h * f, : w * f].reshape(b, h, f, w, f, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, f * f * c)


def depth_to_space(x, f: int):
    """Rearranges channels into f x f pixels, the inverse of `space_to_depth`: [b h w f*f*c] -> [b h*f w*f c]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, f, f, c // (f * f)).transpose(0, 1, 3, 2, 4, 5)  # b h f w f c
    return x.reshape(b, h * f, w * f, c // (f * f))


def linear_code(x, f: int, num: int) -> tuple[dict, dict]:
    """Computes the best linear code of f x f patches: their principal components, each with a standard deviation of 1.

    Args:
      x: images [b H W 3] in [-1, 1].
      f: side of a patch in pixels.
      num: number of components that are kept, at most 3 f^2.

    Returns:
      The parameters {"kernel", "bias"} of the 1x1 convolution `linear` in the encoder, and those in the decoder.

    Raises:
      ValueError: if num is larger than the number of values in a patch.
    """
    if num > 3 * f * f:
        raise ValueError(f"A patch of {f} x {f} pixels holds {3 * f * f} numbers, fewer than the {num} asked for.")
    patches = space_to_depth(x, f).reshape(-1, 3 * f * f)  # n 3ff
    mean = jnp.mean(patches, axis=0)
    variance, basis = jnp.linalg.eigh(jnp.cov(patches, rowvar=False, bias=True) + 1e-8 * jnp.eye(len(mean)))
    basis, deviation = basis[:, ::-1][:, :num], jnp.sqrt(jnp.maximum(variance[::-1][:num], 1e-8))
    encode, decode = basis / deviation[None], (basis * deviation[None]).T  # 3ff num; num 3ff
    return (
        {"kernel": encode[None, None], "bias": -mean @ encode},
        {"kernel": decode[None, None], "bias": mean},
    )


class LocalBlock(nn.Module):
    """Applies a residual block to x [b h w c].

    Its branch is norm, SiLU and a 3x3 convolution, twice. An embedding [b d] scales and shifts the features after the
    second norm (FiLM).
    """

    num_groups: int  # groups of GroupNorm
    norm: str = "channel"  # one of layers.NORMS
    dtype: jnp.dtype = jnp.float32  # compute type; parameters stay float32

    @nn.compact
    def __call__(self, x, emb=None):  # b h w c
        c = x.shape[-1]
        h = nn.silu(make_norm(self.norm, self.num_groups, EPSILON, self.dtype, "norm1")(x))
        h = conv3x3(c, kernel_init=_init(1.0), dtype=self.dtype, name="conv1")(h)
        h = make_norm(self.norm, self.num_groups, EPSILON, self.dtype, "norm2")(h)
        if emb is not None:
            film = nn.Dense(2 * c, kernel_init=nn.initializers.normal(0.02), dtype=self.dtype, name="emb")(emb)
            scale, shift = jnp.split(film[:, None, None], 2, axis=-1)
            h = h * (1 + scale) + shift
        return x + conv3x3(c, kernel_init=_init(0.1), dtype=self.dtype, name="conv2")(nn.silu(h))


class _Tower(nn.Module):
    """Defines what E and D share: the fields, and residual blocks on the grid of latent cells."""

    z_channels: int  # c, channels of the latent
    factor: int = 4  # f, pixels per latent cell along a side
    ch: int = 128  # channels of the residual blocks
    num_res_blocks: int = 1  # number of residual blocks
    num_groups: int = 32  # groups of GroupNorm
    norm: str = "channel"  # one of layers.NORMS
    remat: bool = False  # recompute each block in the backward pass instead of keeping its activations
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the linear maps stay float32

    def trunk(self, x):  # b h w c -> b h w ch
        """Applies a convolution and the residual blocks: [b h w c] -> [b h w ch]."""
        x = conv3x3(self.ch, kernel_init=_init(1.0), dtype=self.dtype, name="conv_in")(x.astype(self.dtype))
        for i in range(self.num_res_blocks):
            block = with_remat(LocalBlock, self.remat)
            x = block(self.num_groups, self.norm, dtype=self.dtype, name=f"block_{i}")(x)
        return x  # no norm here: it would hide the amplitude from the last layer


class LinearEncoder(_Tower):
    """Maps an image [b H W 3] in [-1, 1] to a latent [b H/f W/f c]: the linear code plus a correction."""

    double_z: bool = False  # always False, since this encoder has no variance

    @nn.compact
    def __call__(self, x):
        patches = space_to_depth(x, self.factor)
        code = conv1x1(self.z_channels, precision="highest", name="linear")(patches)
        h = self.trunk(patches).astype(jnp.float32)
        return code + conv1x1(self.z_channels, kernel_init=_init(0.01), name="conv_out")(h)


class SubcellDecoder(_Tower):
    """Maps a latent [b h w c] to float32 features [b h*f w*f features], of which the first three are colours.

    The colours are the decoded linear code plus a correction. A few 3x3 convolutions smooth the features over the
    borders of latent cells.
    """

    features: int = 32  # channels of a sub-cell
    num_convs: int = 2  # number of 3x3 convolutions on the grid of sub-cells

    @nn.compact
    def __call__(self, z):
        f, d = self.factor, self.features
        colour = conv1x1(COLOURS * f * f, precision="highest", name="linear")(z)
        colour = depth_to_space(colour, f)  # b H W 3
        h = conv3x3(d * f * f, kernel_init=_quiet(0.1, d), dtype=self.dtype, name="conv_out")(self.trunk(z))
        h = depth_to_space(h, f)  # b H W d
        seen = jnp.pad(colour.astype(self.dtype), ((0, 0),) * 3 + ((0, d - COLOURS),))
        for i in range(self.num_convs):
            conv = conv3x3(d, kernel_init=_quiet(0.02, d), dtype=self.dtype, name=f"subcell_conv_{i}")
            h = h + conv(nn.silu(h + seen))
        h = h.astype(jnp.float32)
        return jnp.concatenate([colour + h[..., :COLOURS], h[..., COLOURS:]], axis=-1)


class LocalUNet(nn.Module):
    """Predicts z_0 as the condition plus a correction, from z_t, the time and the strength of the input's damage.

    Most of its work is at the finest level, which has one cell per input pixel. On the way down a 2x2 convolution of
    stride 2 halves the sides, on the way up a 1x1 convolution and a rearrangement double them; skip connections are
    added. Without a condition it predicts z_0 directly.
    """

    out_channels: int  # channels of z_0
    model_channels: int = 128  # channels at the finest level
    channel_mult: tuple[float, ...] = (1, 1.25, 1.75)  # channels of each level divided by model_channels
    num_res_blocks: tuple[int, ...] = (3, 2, 2)  # residual blocks per level; the finest has one more on the way up
    num_groups: int = 32  # groups of GroupNorm
    norm: str = "channel"  # one of layers.NORMS
    strength: bool = True  # use the strength of the damage as an input
    emb_channels: int = 128  # channels of the embedding of time and strength
    remat: bool = False  # recompute each block in the backward pass instead of keeping its activations
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the last layer stay float32

    def run(self, x, emb, name: str, num: int):
        """Applies `num` residual blocks to x [b h w c], conditioned on emb [b d]."""
        for i in range(num):
            block = with_remat(LocalBlock, self.remat)
            x = block(self.num_groups, self.norm, dtype=self.dtype, name=f"{name}_block_{i}")(x, emb)
        return x

    def embed(self, t, strength):
        """Embeds times [b] and strengths [b] of the damage in [0, 1], which are negative where unknown -> [b d]."""
        emb = nn.Dense(self.emb_channels, name="time_embed")(time_embedding(t, self.emb_channels))
        if self.strength:
            known = (strength >= 0).astype(jnp.float32)
            told = jnp.maximum(strength, 0)
            emb += nn.Dense(self.emb_channels, name="strength_embed")(jnp.stack([known, told, jnp.sqrt(told)], axis=-1))
        return nn.silu(nn.Dense(self.emb_channels, name="embed")(nn.silu(emb))).astype(self.dtype)

    @nn.compact
    def __call__(self, z_t, t, c=None, drop_keys=None, strength=None):
        """Predicts z_0.

        Args:
          z_t: noisy latent, [b h w c].
          t: times in [0, T), [b].
          c: condition of the same shape as z_t, or None.
          drop_keys: unused, since there is no dropout.
          strength: strength of the damage in [0, 1], [b]; None or negative where it is unknown.

        Returns:
          z_0_hat, float32 [b h w out_channels].
        """
        strength = jnp.full(len(z_t), -1.0) if strength is None else strength
        emb, size, last = self.embed(t, strength), z_t.shape[1:3], len(self.channel_mult) - 1
        widths = [round(self.model_channels * mult) for mult in self.channel_mult]
        x = z_t if c is None else jnp.concatenate([z_t, c], axis=-1)
        x = pad_to_multiple(x, 2**last).astype(self.dtype)
        x = conv3x3(widths[0], kernel_init=_init(1.0), dtype=self.dtype, name="conv_in")(x)
        skips = []
        for level in range(last):
            x = self.run(x, emb, f"down_{level}", self.num_res_blocks[level])
            skips.append(x)
            down = nn.Conv(widths[level + 1], (2, 2), 2, "VALID", dtype=self.dtype, name=f"down_{level}_downsample")
            x = down(x)
        x = self.run(x, emb, "mid", self.num_res_blocks[last])
        for level in reversed(range(last)):
            up = conv1x1(4 * widths[level], dtype=self.dtype, name=f"up_{level}_upsample")(x)
            x = skips.pop() + depth_to_space(up, 2)
            x = self.run(x, emb, f"up_{level}", self.num_res_blocks[level] + (level == 0))
        zeros = nn.initializers.zeros_init()  # training starts from the condition
        x = conv3x3(self.out_channels, kernel_init=zeros, name="conv_out")(x.astype(jnp.float32))
        x = x[:, : size[0], : size[1]]
        return x if c is None else c + x
