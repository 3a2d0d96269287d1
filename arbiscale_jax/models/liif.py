"""Defines the implicit renderer f_theta, which maps features and a coordinate to RGB (LIIF; paper 3.2, Eq. 5-6).

Along an axis, output pixel i of N is at u = (i + 1/2) n / N in units of the n latent cells, whose centres are at
k + 1/2. In the paper coordinates lie in [-1, 1]; then "relative coordinate times n" is 2 (u - (k + 1/2)), and "cell
size times n" is 2 n / N. Positions are computed from integers, so a window is precise at any distance from the origin.
Axis letters: b is the batch, h and w are latent cells, p and q output rows and columns, s the two nearest cells along
an axis.
"""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

TINY_AREA = 1e-9  # keeps weights defined where a pixel is on the centre of the last cell and all four areas are 0


class Axis(NamedTuple):
    """Locates p output pixels along one axis of the latent."""

    # the cells below and above each pixel, clipped to the latent, int32 [2, p]; it hides tuple.index, which is not used
    index: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    rel: jax.Array  # relative coordinate of the pixel to each of these cells, times n, float32 [2, p]
    cell: jax.Array  # size of an output pixel, times n, float32 []


def axis(latent: int, size, start=0, length=None, *, xp=np) -> Axis:
    """Returns the places of the pixels start .. start + length - 1 of an output along one axis of the latent.

    A pixel on the centre of a cell, as at scale 1 and odd scales, counts as just above it, so that cell has weight 1.

    Args:
      latent: n, number of latent cells.
      size: N >= 1, number of pixels of the whole output; an int, or with xp=jnp a traced int32 scalar.
      start: first pixel, any integer; an int, or with xp=jnp a traced int32 scalar, and then (2 start + 2 length) n
        must be below 2^31.
      length: number of pixels; None is `size`.
      xp: numpy, which is exact (int64 and float64, rounded once at the end), or jax.numpy.
    """
    length = size if length is None else length
    whole, real = (np.int64, np.float64) if xp is np else (jnp.int32, jnp.float32)
    twice = (2 * (start + xp.arange(length, dtype=whole)) + 1) * latent - size  # 2 N (u - 1/2)
    below = twice // (2 * size)
    frac = (twice - below * 2 * size).astype(real) / (2 * size)  # u - 1/2 - below, in [0, 1)
    cells = xp.stack([below, below + 1])
    index = xp.clip(cells, 0, latent - 1)
    # beyond the border the neighbour is the edge cell, with the true relative coordinate to that
    rel = 2 * (xp.stack([frac, frac - 1]) + (cells - index).astype(real))
    rel = xp.where((rel == 0) & (cells[1:] >= latent), _reference_residue(start, length, size, latent, xp)[None], rel)
    cell = xp.asarray(2 * latent / size)
    return Axis(index.astype(xp.int32), rel.astype(xp.float32), cell.astype(xp.float32))


def _reference_residue(start, length, size, latent: int, xp):
    """Returns the rounding error of float32 coordinates for pixels on the centre of the last cell, times n: [p].

    For such a pixel all four areas of the blend are 0 in exact arithmetic, so in the reference implementation its
    rounding error and TINY_AREA decide the weights. The same error is needed here to agree with its renders in the last
    row. It is exactly 0 at scale 1.
    """
    first, step = (lambda n: xp.asarray(1 / n - 1, xp.float32)), (lambda n: xp.asarray(2 / n, xp.float32))
    pixels = (start + xp.arange(length)).astype(xp.float32) * step(size) + first(size)
    return (pixels - (xp.float32(latent - 1) * step(latent) + first(latent))) * xp.float32(latent)


def nearest(axis: Axis) -> Axis:
    """Returns an Axis with only the nearest cell of each pixel, [1, p], for LIIF without local ensemble."""
    near = (axis.rel[0] >= 1) | (axis.index[0] == axis.index[1])

    def pick(a):
        return jnp.where(near, a[1], a[0])[None]

    return Axis(pick(axis.index), pick(axis.rel), axis.cell)


def blend_weights(rows: Axis, cols: Axis):
    """Returns the weight of each neighbour, the area of the *opposite* rectangle over the sum of areas: [s s p q]."""
    area = jnp.abs(rows.rel[:, None, :, None] * cols.rel[None, :, None, :]) + TINY_AREA
    return area[::-1, ::-1] / jnp.sum(area, axis=(0, 1), keepdims=True)


def _middle(kernels, biases, x, dtype):
    """Applies the MLP between its first and its last affine map: [..., hidden[0]] -> float32 [..., hidden[-1]]."""
    for kernel, bias in zip(kernels[1:-1], biases[1:-1], strict=True):
        x = _affine(nn.relu(x.astype(dtype)), kernel.astype(dtype), bias.astype(dtype))
    return nn.relu(x.astype(jnp.float32))


def _affine(x, kernel, bias):
    """Computes x [..., a] @ kernel [a, b] + bias [b] -> [..., b]."""
    return x @ kernel + jnp.expand_dims(bias, range(x.ndim - 1))


def select(features, rows, cols, *, products: bool = False):
    """Returns features[:, rows][:, :, cols].

    Args:
      features: [b h w d].
      rows: indices of rows, [p].
      cols: indices of columns, [q].
      products: use products with matrices of zeros and ones, whose gradient is a product as well. The gradient of a
        gather is a scatter, which accelerators compute slowly. Float32 features keep all their bits.

    Returns:
      [b p q d].
    """
    if not products:
        return features[:, rows[:, None], cols]
    h, w = features.shape[1:3]
    of_row, of_col = (jax.nn.one_hot(i, n, dtype=features.dtype) for i, n in ((rows, h), (cols, w)))
    picked = jnp.einsum("ph,bhwd->bpwd", of_row, features, precision="highest")
    return jnp.einsum("qw,bpwd->bpqd", of_col, picked, precision="highest")


class Liif(nn.Module):
    """Maps (feature, relative coordinate, cell size) to RGB with an MLP of ReLU layers, blended over four cells.

    With `residual` the first three features of a cell are its colour, and the MLP, which starts near zero, adds to it.
    """

    hidden: tuple[int, ...] = (256, 256, 256, 256)  # widths of the hidden layers
    local_ensemble: bool = True  # blend the answers of the four nearest cells
    cell_decode: bool = True  # give the MLP the size of an output pixel
    features: int = 128  # c, channels of the feature map
    residual: bool = False  # add the MLP's answer to the colour in the first three features
    remat: bool = False  # recompute the MLP in the backward pass instead of keeping its activations
    dtype: jnp.dtype = jnp.float32  # compute type; parameters and the last layer stay float32

    def setup(self):
        """Makes the kernels and biases of the MLP."""
        widths = (self.features + (4 if self.cell_decode else 2), *self.hidden, 3)
        inits = [nn.initializers.he_uniform()] * (len(widths) - 1)
        if self.residual:
            inits[-1] = nn.initializers.normal(0.003)
        self.kernels = [
            self.param(f"kernel_{i}", init, shape)
            for i, (init, shape) in enumerate(zip(inits, pairwise(widths), strict=True))
        ]
        self.biases = [self.param(f"bias_{i}", nn.initializers.zeros_init(), (b,)) for i, b in enumerate(widths[1:])]

    def middle(self, x):
        """Applies the MLP between its first and its last affine map: [..., hidden[0]] -> float32 [..., hidden[-1]]."""
        middle = partial(_middle, dtype=self.dtype)
        return (jax.checkpoint(middle) if self.remat else middle)(self.kernels, self.biases, x)

    def last(self, x):
        """Applies the last affine map, in float32: [..., hidden[-1]] -> [..., 3]."""
        return _affine(x, self.kernels[-1], self.biases[-1])

    def query(self, feat, y: Axis, x: Axis):
        """Returns the RGB of one output pixel; this is the definition.

        Args:
          feat: feature map, [h w c].
          y: Axis of one pixel: index and rel are [2, 1], cell is [].
          x: the same along the other axis.

        Returns:
          [3], about [-1, 1].
        """
        if not self.local_ensemble:
            y, x = nearest(y), nearest(x)
        share, rgb = blend_weights(y, x)[..., 0, 0], 0.0
        for i in range(y.rel.shape[0]):
            for j in range(x.rel.shape[0]):
                feature = feat[y.index[i, 0], x.index[j, 0]].astype(jnp.float32)
                inputs = [feature, y.rel[i], x.rel[j]]
                if self.cell_decode:
                    inputs += [y.cell[None], x.cell[None]]
                hidden = jnp.concatenate(inputs) @ self.kernels[0] + self.biases[0]
                rgb += share[i, j] * (self.last(self.middle(hidden)) + (feature[:3] if self.residual else 0))
        return rgb

    def points(self, feat, y: Axis, x: Axis):
        """Applies `query` to p pixels: feature map [h w c], y and x as Axis of the same p pixels -> [p, 3]."""

        def one(yi, yr, xi, xr):
            return self.query(feat, Axis(yi[:, None], yr[:, None], y.cell), Axis(xi[:, None], xr[:, None], x.cell))

        return jax.vmap(one, in_axes=(1, 1, 1, 1))(y.index, y.rel, x.index, x.rel)

    def project(self, feat):
        """Applies the part of the first layer that sees features, once per latent cell instead of four times per pixel.

        Args:
          feat: feature map, [b h w c].

        Returns:
          [b h w hidden[0]] of the compute type; with `residual` float32 [b h w hidden[0] + 3], the colours last.
        """
        kernel = self.kernels[0][: self.features]
        out = _affine(feat.astype(self.dtype), kernel.astype(self.dtype), self.biases[0].astype(self.dtype))
        if not self.residual:
            return out
        return jnp.concatenate([out.astype(jnp.float32), feat[..., :3].astype(jnp.float32)], axis=-1)

    def grid(self, projected, rows: Axis, cols: Axis, *, products: bool = False):
        """Renders a regular grid of pixels fast; it equals `query` at every pixel up to rounding.

        The four neighbours are blended before the last affine map, which commutes with weights whose sum is 1.

        Args:
          projected: what `project` returns, [b h w d].
          rows: Axis of p pixels, for all examples or with a leading batch axis.
          cols: Axis of q pixels, likewise.
          products: see `select`; for training on an accelerator.

        Returns:
          float32 [b p q 3].
        """
        if rows.index.ndim == 3:
            # plain vmap suffices: `grid` only reads parameters that setup has made
            return jax.vmap(lambda f, r, c: self.grid(f[None], r, c, products=products)[0])(projected, rows, cols)
        if not self.local_ensemble:
            rows, cols = nearest(rows), nearest(cols)
        c = self.features
        rest = self.kernels[0][c:, None, None]  # of the coordinates and the size of a pixel: 2 or 4, 1 1 d
        of_row = rows.rel[..., None] * rest[0]  # s p d
        of_col = cols.rel[..., None] * rest[1]  # s q d
        if self.cell_decode:
            of_row += rows.cell * rest[2]
            of_col += cols.cell * rest[3]
        share = blend_weights(rows, cols)
        hidden: Any = 0.0
        colours: Any = 0.0
        for i in range(rows.rel.shape[0]):
            for j in range(cols.rel.shape[0]):
                x = select(projected, rows.index[i], cols.index[j], products=products)  # b p q d
                weight = share[i, j][None, ..., None]
                if self.residual:
                    x, colour = jnp.split(x, [len(self.biases[0])], axis=-1)
                    colours += weight * colour
                x = x + of_row[i][None, :, None].astype(self.dtype) + of_col[j][None, None].astype(self.dtype)
                hidden += weight * self.middle(x)
        return self.last(hidden) + colours

    def __call__(self, feat, rows: Axis, cols: Axis):
        """Renders a window of a feature map [b h w c]; rows and cols are as in `grid` -> [b p q 3]."""
        return self.grid(self.project(feat), rows, cols)
