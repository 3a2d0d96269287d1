"""Defines layers that the auto-encoder and the U-Net share.

Axis letters: b is the batch, h and w are space, n tokens, m heads, c channels.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

BLOCKED_ABOVE = 4096  # number of tokens above which attention is computed in blocks of queries
BLOCK_ELEMENTS = 2**24  # elements of the attention matrix that are in memory at once

NORMS = ("group", "channel", "none")

conv3x3 = partial(nn.Conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)))
conv1x1 = partial(nn.Conv, kernel_size=(1, 1))


def with_remat(block: type[nn.Module], remat: bool) -> type[nn.Module]:
    """Returns `block`; with `remat` its activations are recomputed in the backward pass."""
    return nn.remat(block) if remat else block


class Moments(NamedTuple):
    """Holds the moments of the groups of channels of each example."""

    mean: Any  # [b groups]
    variance: Any  # [b groups]
    count: Any  # number of cells over which they were taken, [b]


def group_moments(x, num_groups: int, inside=None) -> Moments:
    """Returns the moments of x [b h w c] over groups of channels and over the cells where `inside` [b h w] is true.

    The variance is taken in two passes, in float32. The mean over space comes first and that over the few channels of a
    group afterwards, which takes half the time on a CPU.
    """
    b, h, w, c = x.shape
    x = x.astype(jnp.float32).reshape(b, h * w, c)
    share = None if inside is None else inside.reshape(b, h * w, 1).astype(jnp.float32)
    count = jnp.full(b, h * w, jnp.float32) if share is None else jnp.sum(share, axis=(1, 2))

    def group_mean(x):  # b n c -> b groups
        mean = jnp.mean(x, axis=1)
        if share is not None:  # the maximum keeps the numbers finite where nothing is counted
            mean = jnp.sum(jnp.where(share > 0, x, 0), axis=1) / jnp.maximum(count, 1)[:, None]
        return jnp.mean(mean.reshape(b, num_groups, c // num_groups), axis=2)

    mean = group_mean(x)
    return Moments(mean, group_mean(jnp.square(x - _of_channels(mean, c))), count)


def _of_channels(x, channels: int):
    """Repeats values of groups [b groups] for the channels of each -> [b 1 channels]."""
    return jnp.repeat(x, channels // x.shape[1], axis=1)[:, None]


class GroupNorm(nn.Module):
    """Applies group normalisation to x [b h w c] with the moments of `group_moments`.

    It equals that of flax with use_fast_variance=False. With `inside` [b h w] the moments are those of the cells where
    it is true; each example needs one. With `moments` they are given (models/moments.py).

    Raises:
      ValueError: if the channels are not a multiple of num_groups.
    """

    num_groups: int  # number of groups
    epsilon: float  # added to the variance
    dtype: jnp.dtype = jnp.float32  # type of the output

    @nn.compact
    def __call__(self, x, inside=None, moments: Moments | None = None):  # b h w c; b h w
        b, h, w, c = x.shape
        if c % self.num_groups:
            raise ValueError(f"GroupNorm needs channels divisible by num_groups={self.num_groups}, got {c}.")
        scale = self.param("scale", nn.initializers.ones_init(), (c,))
        bias = self.param("bias", nn.initializers.zeros_init(), (c,))
        moments = group_moments(x, self.num_groups, inside) if moments is None else moments
        x = x.astype(jnp.float32).reshape(b, h * w, c) - _of_channels(moments.mean, c)
        x = x * (_of_channels(jax.lax.rsqrt(moments.variance + self.epsilon), c) * scale.reshape(1, 1, c))
        x = x + bias.reshape(1, 1, c)
        return x.reshape(b, h, w, c).astype(self.dtype)


class ChannelNorm(nn.Module):
    """Divides the channels of each position of x [b h w c] by their root mean square (Zhang and Sennrich 2019).

    It computes in float32. There is no statistic over space, so a window of a picture gives the same values as the
    whole picture.
    """

    epsilon: float  # added to the mean square
    dtype: jnp.dtype = jnp.float32  # type of the output

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        x = x.astype(jnp.float32)
        power = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return (x * (jax.lax.rsqrt(power + self.epsilon) * scale.reshape(1, 1, 1, -1))).astype(self.dtype)


def make_norm(kind: str, num_groups: int, epsilon: float, dtype, name: str) -> Callable:
    """Builds a normalisation.

    Args:
      kind: "group" (that of the paper), "channel" (at each position by itself) or "none" (the identity).
      num_groups: groups of "group".
      epsilon: added to the variance or the mean square.
      dtype: type of the output.
      name: name in the parameter tree.

    Raises:
      ValueError: if the kind is unknown.
    """
    if kind == "group":
        return GroupNorm(num_groups, epsilon, dtype=dtype, name=name)
    if kind == "channel":
        return ChannelNorm(epsilon, dtype=dtype, name=name)
    if kind == "none":
        return lambda x: x.astype(dtype)
    raise ValueError(f"norm is one of {', '.join(NORMS)}, got {kind!r}.")


def attend(q, k, v, inside=None):
    """Computes attention softmax(q k^T / sqrt(c)) v with the softmax in float32.

    Above 4096 tokens it is computed in blocks of queries, which saves memory.

    Args:
      q: queries, [b n m c].
      k: keys, [b n m c].
      v: values, [b n m c].
      inside: [b n], true for the tokens that are keys; None means all.

    Returns:
      [b n m c].
    """
    b, n, m, c = q.shape
    keys = None if inside is None else inside[:, None, None]  # b 1 1 n

    attention = _attend_by_heads if jax.default_backend() == "cpu" else jax.nn.dot_product_attention

    def block(q):  # b n' m c
        return attention(q, k, v, mask=keys)

    if n <= BLOCKED_ABOVE:
        return block(q)
    rows = max(1, min(n, BLOCK_ELEMENTS // (b * m * n)))
    blocks = -(-n // rows)
    q = jnp.pad(q, ((0, 0), (0, blocks * rows - n), (0, 0), (0, 0)))
    q = jnp.moveaxis(q.reshape(b, blocks, rows, m, c), 1, 0)  # blocks b rows m c
    out = jax.lax.map(jax.checkpoint(block), q)
    return jnp.moveaxis(out, 0, 1).reshape(b, blocks * rows, m, c)[:, :n]


def _attend_by_heads(q, k, v, mask=None):
    """Computes what jax.nn.dot_product_attention does, in 0.6 of its time on a CPU, where it transposes the logits."""
    q, k, v = (jnp.moveaxis(x, 2, 1) for x in (q, k, v))  # b m n c
    logits = jnp.einsum("bmqc,bmkc->bmqk", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    share = jax.nn.softmax(logits).astype(v.dtype)
    return jnp.moveaxis(jnp.einsum("bmqk,bmkc->bmqc", share, v), 1, 2)


class Attention(nn.Module):
    """Adds self-attention over all positions to x [b h w c], or over those where `inside` [b h w] is true.

    The channels of `qkv` are ordered by head, then by (q, k, v), then by channel, as in the U-Net of LDM. With one head
    this is q, k, v side by side, like the three 1x1 convolutions of the auto-encoder.

    Raises:
      ValueError: if the channels are not a multiple of num_heads.
    """

    num_heads: int  # number of attention heads
    num_groups: int  # groups of GroupNorm
    epsilon: float  # added to the variance in the norm
    zero_init: bool = False  # let the output projection start at zero
    norm: str = "group"  # one of NORMS
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the softmax stay float32

    @nn.compact
    def __call__(self, x, inside=None):  # b h w c; b h w
        b, h, w, c = x.shape
        if c % self.num_heads:
            raise ValueError(f"Attention needs channels divisible by num_heads={self.num_heads}, got {c}.")
        norm = make_norm(self.norm, self.num_groups, self.epsilon, self.dtype, "norm")
        y = norm(x)
        if inside is not None:
            y, inside = jnp.where(inside[..., None], y, jnp.zeros((), y.dtype)), inside.reshape(b, h * w)
        y = y.reshape(b, h * w, c)
        qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(y).reshape(
            b, h * w, self.num_heads, 3 * c // self.num_heads
        )
        q, k, v = jnp.split(qkv, 3, axis=-1)
        y = attend(q, k, v, inside).reshape(b, h * w, c)
        init = nn.initializers.zeros_init() if self.zero_init else nn.initializers.lecun_normal()
        y = nn.Dense(c, kernel_init=init, dtype=self.dtype, name="proj_out")(y)
        return x + y.reshape(b, h, w, c)
