"""Defines IDM, the implicit diffusion model for continuous super-resolution (Gao et al. 2023).

It is the U-Net of SR3 with three additions: an EDSR that makes the condition from the low-resolution image, a network
that gives each level features of that condition and the weights of these features, and in every level on the way up
a coordinate MLP in place of the doubling of the size, so that any output size is possible.

Checkpoints of the authors' code (Ree1s/IDM) are to be loaded, so that is followed where it differs from the paper:
- the condition is the picture that EDSR makes at the output's size, by nearest-neighbour interpolation of its features;
- what the weights depend on is not the scale but the place of the output's side between the side of the low-resolution
  image (0) and the largest side in training (1), see `size_fraction`, and each weight is an affine function of it
  instead of an MLP;
- there is no activation between the two layers of the coordinate MLPs, and a pixel asks its nearest cell alone;
- parameters that the authors' forward pass never uses (16.8 of the 116.6 million) are left out.

Axis letters: b is the batch, h and w are space, p and q output rows and columns, c channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from arbiscale_jax.models import interpolate
from arbiscale_jax.models.layers import conv3x3
from arbiscale_jax.models.liif import select

from .edsr import EdsrEncoder
from .sr3_unet import SR3UNet, orthogonal


def size_fraction(lr_side: int, side: int, largest_scale: float = 8.0) -> float:
    """Returns the place of an output's side between that of the LR image (0) and the largest one in training (1).

    The authors' code trains with one uniform random fraction per batch and rounds the side that belongs to it.

    Args:
      lr_side: side of the low-resolution image.
      side: side of the output.
      largest_scale: largest scale in training, above 1.

    Returns:
      A number in [0, 1] for scales seen in training; beyond these the affine functions extrapolate.

    Raises:
      ValueError: if a side is below 1 or largest_scale is not above 1.
    """
    if min(lr_side, side) < 1 or largest_scale <= 1:
        raise ValueError(f"Sides are at least 1 and largest_scale is above 1, got {lr_side}, {side}, {largest_scale}.")
    return (side / lr_side - 1) / (largest_scale - 1)


class Nearest(NamedTuple):
    """Locates p output pixels along one axis of n cells."""

    cells: np.ndarray  # the cell that is nearest to each pixel, int32 [p]
    rel: np.ndarray  # coordinate of the pixel relative to the centre of that cell, times n, float32 [p]


def nearest_cells(cells: int, pixels: int) -> Nearest:
    """Returns the nearest of `cells` cells for each of `pixels` pixels along an axis from -1 to 1.

    It computes in float32 in the order of the authors' code, since rounding decides about pixels that are half-way
    between two cells (the middle one of an odd number).
    """

    def centres(n):
        return np.float32(1 / n - 1) + np.float32(2 / n) * np.arange(n, dtype=np.float32)

    at = centres(pixels)
    index = np.rint(((at + np.float32(1)) * np.float32(cells) - np.float32(1)) / np.float32(2)).astype(np.int32)
    index = np.clip(index, 0, cells - 1)
    return Nearest(index, (at - centres(cells)[index]) * np.float32(cells))


def smooth(x):
    """Filters x [b h w c] with (1, 3, 1) / 5 along both axes of space; outside it is 0."""
    for axis in (1, 2):
        widths = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        padded, n = jnp.pad(x, widths), x.shape[axis]
        before, after = (jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2))
        x = (before + 3 * x + after) / 5
    return x


def scaled_leaky_relu(x):
    """Returns sqrt(2) LeakyReLU(x) with slope 0.2, which about keeps the variance."""
    return np.sqrt(2.0).astype(np.float32) * nn.leaky_relu(x, 0.2)


class EqualizedConv(nn.Module):
    """Convolves x [b h w c] with a 3x3 kernel times 1 / sqrt(9 c) (Karras et al. 2018) -> [b h' w' features]."""

    features: int  # output channels
    stride: int = 1  # step of the kernel
    activate: bool = False  # apply scaled_leaky_relu

    @nn.compact
    def __call__(self, x):
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", orthogonal, shape) / np.sqrt(np.float32(9 * x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)).reshape(1, 1, 1, -1)
        form = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), ((1, 1), (1, 1)), dimension_numbers=form
        )
        return scaled_leaky_relu(x + bias) if self.activate else x + bias


class ConditionEncoder(nn.Module):
    """Makes the condition from a low-resolution image with EDSR: [b h w 3] -> [b *size 3].

    The features are enlarged by nearest-neighbour interpolation before the last convolution.
    """

    channels: int = 64  # channels of all layers
    blocks: int = 16  # residual blocks

    @nn.compact
    def __call__(self, lr, size: tuple[int, int]):
        features = EdsrEncoder(self.channels, self.blocks, name="edsr")(lr)
        return conv3x3(3, kernel_init=orthogonal, name="conv_out")(interpolate(features, size, "nearest"))


class Guide(NamedTuple):
    """Holds what the condition gives one level (section 3.3); the weights are not yet normalised."""

    generated: jax.Array  # weight of the U-Net's features, [b c]
    lr: jax.Array  # weight of the condition's features, [b c]
    features: jax.Array  # features of the condition at the level's size, [b h w c]


class Guidance(nn.Module):
    """Computes the guides of all levels but the finest from the condition [b h w 3] and the size's fraction [b]."""

    widths: tuple[int, ...]  # channels of each level, the finest first

    @nn.compact
    def __call__(self, condition, fraction) -> dict[int, Guide]:
        x, guides = EqualizedConv(self.widths[0], activate=True, name="conv_in")(condition), {}
        for level, width in enumerate(self.widths):
            if level:
                generated, lr = (
                    nn.Dense(width, kernel_init=orthogonal, name=f"weight_{name}_{level}")(fraction[:, None])
                    for name in ("generated", "lr")
                )
                guides[level] = Guide(generated, lr, EqualizedConv(width, name=f"features_{level}")(x))
            if level < len(self.widths) - 1:
                x = EqualizedConv(width, stride=2, activate=True, name=f"down_{level}")(smooth(x))
        return guides


class ImplicitUpsample(nn.Module):
    """Mixes the condition into x [b h w c] and renders it at any size with a coordinate MLP -> [b *size c].

    It stands for the doubling of the size in a U-Net (sections 3.2 and 3.3).
    """

    hidden: int = 256  # width of the MLP's hidden layer

    @nn.compact
    def __call__(self, x, size: tuple[int, int], guide: Guide):
        c, zeros = x.shape[-1], nn.initializers.zeros_init()
        kernel_0 = self.param("kernel_0", orthogonal, (c + 2, self.hidden))
        kernel_1 = self.param("kernel_1", orthogonal, (self.hidden, c))
        bias_0, bias_1 = self.param("bias_0", zeros, (self.hidden,)), self.param("bias_1", zeros, (c,))
        bias = self.param("bias", zeros, (c,)).reshape(1, 1, 1, c)

        # the two weights are normalised to lie on a circle
        length = jax.lax.rsqrt(jnp.square(guide.generated) + jnp.square(guide.lr) + 1e-8)
        x = x * (guide.generated * length)[:, None, None] + guide.features * (guide.lr * length)[:, None, None]
        x = scaled_leaky_relu(x + bias)

        # both layers are linear, so they are applied to the cells and to the coordinates before these are combined
        rows, cols = (nearest_cells(n, out) for n, out in zip(x.shape[1:3], size, strict=True))
        x = (x @ kernel_0[:c] + bias_0.reshape(1, 1, 1, -1)) @ kernel_1 + bias_1.reshape(1, 1, 1, c)
        y_part, x_part = rows.rel[:, None] * kernel_0[None, c], cols.rel[:, None] * kernel_0[None, c + 1]  # p d; q d
        x = select(x, rows.cells, cols.cells)  # b p q c
        return x + (y_part @ kernel_1)[None, :, None] + (x_part @ kernel_1)[None, None]


class IDM(nn.Module):
    """Predicts eps from a noisy image of any size, its noise level and a low-resolution image (section 3).

    The defaults are those of the authors' configurations, which are trained at 128 pixels.
    """

    out_channels: int = 3  # channels of eps
    channels: int = 64  # channels at the finest level
    channel_mult: tuple[int, ...] = (1, 2, 4, 8, 8)  # channels of each level divided by `channels`
    num_res_blocks: int = 2  # residual blocks per level
    attention_levels: tuple[int, ...] = (3,)  # levels with self-attention; 0 is the finest
    num_groups: int = 32  # groups of GroupNorm
    dropout: float = 0.2  # dropout rate in the residual blocks
    implicit_width: int = 256  # hidden width of the coordinate MLPs
    encoder_channels: int = 64  # channels of EDSR
    encoder_blocks: int = 16  # residual blocks of EDSR

    def setup(self):
        """Makes the three networks; the parameter tree is encoder/ guidance/ unet/."""
        self.encoder = ConditionEncoder(self.encoder_channels, self.encoder_blocks)
        self.guidance = Guidance(tuple(self.channels * mult for mult in self.channel_mult))
        shared = ("out_channels", "channels", "channel_mult", "num_res_blocks", "attention_levels", "num_groups")
        self.unet = SR3UNet(**{name: getattr(self, name) for name in (*shared, "dropout")})

    def encode(self, lr, size: tuple[int, int]):
        """Makes the condition, which all steps of sampling share: lr [b h w 3] in [-1, 1] -> [b *size 3]."""
        return self.encoder(lr, size)

    def denoise(self, x_t, noise_level, condition, fraction, drop_keys=None):
        """Predicts eps.

        Args:
          x_t: noisy images, [b h w 3].
          noise_level: sqrt(alpha_bar) in (0, 1], [b].
          condition: what `encode` returns for the size of x_t, [b h w 3].
          fraction: `size_fraction` of the output, [b].
          drop_keys: one random key per example, [b], for dropout; None is no dropout.

        Returns:
          eps_hat, [b h w out_channels].
        """
        guides = self.guidance(condition, fraction)

        def enlarge(x, size, level):
            return ImplicitUpsample(self.implicit_width, name=f"up_{level}_upsample")(x, size, guides[level])

        return self.unet(x_t, noise_level, condition, drop_keys, enlarge)

    def __call__(self, x_t, noise_level, lr, fraction, drop_keys=None):
        """Applies `encode` and `denoise`: lr is [b h w 3] of any size -> eps_hat, shaped like x_t."""
        return self.denoise(x_t, noise_level, self.encode(lr, x_t.shape[1:3]), fraction, drop_keys)
