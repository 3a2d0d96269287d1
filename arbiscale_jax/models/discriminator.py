"""Defines discriminators: that of pix2pix for patches (Isola et al. 2017), as in LDM, and Real-ESRGAN's U-Net."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from .layers import GroupNorm

SLOPE = 0.2  # slope of LeakyReLU below zero
MAX_WIDTH = 8  # largest number of channels, divided by ch
GROUPS = 8  # groups of GroupNorm; fewer if they do not divide the channels
HALVINGS = 3  # how often the U-Net halves the resolution
LEAST_UNET_SIDE = 2 * 2**HALVINGS  # pixels; the coarsest level of the U-Net then still has neighbours to compare
POWER_ITERATIONS = 8  # enough to find the singular value of a random kernel to within 10 %, from below

_init = nn.initializers.normal(0.02)
_unet_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # the default of PyTorch for convolutions


def least_side(num_layers: int) -> int:
    """Returns the smallest image side that gives a logit: two 4x4 convolutions follow num_layers halvings."""
    return 3 * 2**num_layers


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of an image with 4x4 convolutions, LeakyReLU and GroupNorm.

    pix2pix has BatchNorm instead. With GroupNorm a logit depends on its own image alone, however the batch is divided
    over devices or into micro-batches, and no statistics have to be averaged over steps. Images are [b H W 3] in about
    [-1, 1], logits [b h w], one for each patch.
    """

    ch: int = 64  # channels of the first layer
    num_layers: int = 3  # convolutions of stride 2; with 3 of them a patch has 70 x 70 pixels
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the last layer stay float32

    def conv(self, x, features, stride, name, **options):
        """Applies a 4x4 convolution with the options of nn.Conv: [b h w c] -> [b h' w' features]."""
        options = {"dtype": self.dtype, "kernel_init": _init, "name": name, **options}
        return nn.Conv(features, (4, 4), stride, ((1, 1), (1, 1)), **options)(x)

    @nn.compact
    def __call__(self, x):  # b H W 3, about [-1, 1]
        x = nn.leaky_relu(self.conv(x.astype(self.dtype), self.ch, 2, "conv_0"), SLOPE)
        for i in range(1, self.num_layers + 1):
            features = self.ch * min(2**i, MAX_WIDTH)
            x = self.conv(x, features, 2 if i < self.num_layers else 1, f"conv_{i}", use_bias=False)
            x = GroupNorm(math.gcd(features, GROUPS), 1e-5, dtype=self.dtype, name=f"norm_{i}")(x)
            x = nn.leaky_relu(x, SLOPE)
        return self.conv(x.astype(jnp.float32), 1, 1, "conv_out", dtype=jnp.float32)[..., 0]  # b h w, logits


def spectral_norm(kernel):
    """Estimates the largest singular value of a kernel [... c], taken as a matrix with c columns -> [].

    It runs a few power iterations from a fixed start. Miyato et al. 2018 (algorithm 1) carry one iteration on from step
    to step in a variable instead. Here the value depends on the kernel alone, and it is never above the true one. It is
    computed in float32, and its gradient is that of u^T K v with u and v held constant.
    """
    kernel = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])  # n c
    fixed, dot = jax.lax.stop_gradient(kernel), partial(jnp.dot, precision="highest")

    def iterate(_, v):
        return _unit(dot(_unit(dot(fixed, v)), fixed))

    v = jax.lax.fori_loop(0, POWER_ITERATIONS, iterate, jax.random.normal(jax.random.key(0), kernel.shape[1:]))
    u = _unit(dot(fixed, v))
    return dot(dot(u, kernel), v)


def _unit(x):
    """Returns x divided by its norm."""
    return x / (jnp.linalg.norm(x) + 1e-12)


class SpectralConv(nn.Module):
    """Convolves with a kernel that is divided by its `spectral_norm`, without bias: [b h w c] -> [b h' w' features]."""

    features: int  # output channels
    width: int  # side of the square kernel
    stride: int = 1  # stride along both sides
    dtype: jnp.dtype = jnp.float32  # compute type; parameters stay float32

    @nn.compact
    def __call__(self, x):  # b h w c
        kernel = self.param("kernel", _unet_init, (self.width, self.width, x.shape[-1], self.features))
        kernel = (kernel / (spectral_norm(kernel) + 1e-12)).astype(self.dtype)
        options = {"padding": ((1, 1), (1, 1)), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(x.astype(self.dtype), kernel, (self.stride, self.stride), **options)


class UNetDiscriminator(nn.Module):
    """Judges every pixel with the U-Net of Real-ESRGAN, which has spectral normalisation (Wang et al. 2021).

    Images are [b H W 3] in about [-1, 1], logits [b H W]. If a side is not a multiple of 8, the border of the image is
    repeated at the right and at the bottom, and the logits there are cut off.
    """

    ch: int = 64  # channels at the finest level
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the last layer stay float32

    @nn.compact
    def __call__(self, x):  # b H W 3, about [-1, 1]
        h, w = x.shape[1:3]
        x = jnp.pad(x, ((0, 0), *((0, -side % 2**HALVINGS) for side in (h, w)), (0, 0)), mode="edge")
        plain = partial(nn.Conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)), kernel_init=_unet_init)
        spectral = partial(SpectralConv, dtype=self.dtype)
        x = nn.leaky_relu(plain(self.ch, dtype=self.dtype, name="conv_in")(x), SLOPE)
        skips = []
        for i in range(1, HALVINGS + 1):
            skips.append(x)
            x = nn.leaky_relu(spectral(self.ch * 2**i, 4, 2, name=f"down_{i}")(x), SLOPE)
        for i in range(HALVINGS - 1, -1, -1):
            x = nn.leaky_relu(spectral(self.ch * 2**i, 3, name=f"up_{i}")(_doubled(_doubled(x, 1), 2)), SLOPE)
            x = x + skips.pop()
        for i in range(2):
            x = nn.leaky_relu(spectral(self.ch, 3, name=f"conv_{i}")(x), SLOPE)
        return plain(1, dtype=jnp.float32, name="conv_out")(x.astype(jnp.float32))[:, :h, :w, 0]  # b H W, logits


def _doubled(x, dim: int):
    """Doubles one dimension of x by linear interpolation between pixel centres; the border is repeated."""
    n = x.shape[dim]
    ends = [jax.lax.slice_in_dim(x, i, i + 1, axis=dim) for i in (0, n - 1)]
    padded = jnp.concatenate([ends[0], x, ends[1]], axis=dim)
    before, after = (jax.lax.slice_in_dim(padded, i, i + n, axis=dim) for i in (0, 2))
    pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=dim + 1)
    return pairs.reshape(*x.shape[:dim], 2 * n, *x.shape[dim + 1 :])
