"""Embeds labels, the style and the words of a picture's name, for the U-Net of a generator."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class LabelEmbedding(nn.Module):
    """Embeds labels [b 1 + n], the number of a style and those of n words, as [b features].

    Numbers count from 1, and 0 stands for nothing. A picture has the mean of its words' vectors; a picture without
    words, or without a style, has a vector of its own (number 0). The last layer starts at zero, so that a fresh
    network does what one without labels does.
    """

    styles: int  # number of styles
    words: int  # number of words
    channels: int  # channels of the two tables
    features: int  # channels of the result
    dtype: jnp.dtype = jnp.float32  # compute type; parameters stay float32

    @nn.compact
    def __call__(self, label):  # b 1 + n
        start = nn.initializers.normal(1.0)  # words are nearly orthogonal from the start
        style = nn.Embed(self.styles + 1, self.channels, dtype=self.dtype, embedding_init=start, name="styles")(
            label[:, 0]
        )  # b c
        vectors = nn.Embed(self.words + 1, self.channels, dtype=self.dtype, embedding_init=start, name="words")(
            label[:, 1:]
        )  # b n c
        share = word_shares(label[:, 1:]).astype(self.dtype)  # b n
        both = jnp.concatenate([style, jnp.einsum("bn,bnc->bc", share, vectors)], axis=-1)
        return nn.Dense(self.features, kernel_init=nn.initializers.zeros_init(), dtype=self.dtype, name="out")(both)


def word_shares(words) -> jax.Array:
    """Returns the weight of each word [b n] in the mean: 1 / (number of words), or 1 for the first 0 if there is none.

    Args:
      words: numbers of words, [b n]; 0 where there is none.

    Returns:
      float32 [b n], whose rows sum to 1.
    """
    there = (words > 0).astype(jnp.float32)
    count = jnp.sum(there, axis=1, keepdims=True)  # b 1
    nothing = (jnp.arange(words.shape[1]) == 0).astype(jnp.float32)[None]  # 1 n
    return jnp.where(count > 0, there / jnp.maximum(count, 1), nothing)
