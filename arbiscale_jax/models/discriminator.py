"""The patch discriminator of the LDM auto-encoders (pix2pix's "PatchGAN", Isola et al. 2017)."""

import math

import jax.numpy as jnp
from flax import linen as nn

from .layers import GroupNorm

SLOPE = 0.2  # of LeakyReLU below zero
MAX_WIDTH = 8  # times ch
GROUPS = 8  # of GroupNorm, fewer where the channels do not divide

_init = nn.initializers.normal(0.02)


def least_side(num_layers: int) -> int:
    """Returns the smallest image side that leaves one logit: two 4x4 convolutions follow num_layers halvings."""
    return 3 * 2**num_layers


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of an image: 4x4 convolutions, LeakyReLU, and GroupNorm where pix2pix has BatchNorm.

    So a logit depends on its own image alone, whatever the batch, its division over devices or into micro-batches, and
    nothing has to be averaged over steps.
    """

    ch: int = 64
    num_layers: int = 3  # convolutions of stride 2; 3 gives patches of 70 x 70 pixels
    dtype: jnp.dtype = jnp.float32

    def conv(self, x, features, stride, name, **options):
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
