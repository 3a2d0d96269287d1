"""The implicit renderer f_theta: RGB at any coordinate from a feature map (paper 3.2, Eq. 5-6; LIIF).

An output pixel i of N lies at u = (i + 1/2) n / N in units of the n latent cells, whose centres are at k + 1/2. With
coordinates over [-1, 1], as in the paper, "relative coordinate times n" is 2 (u - (k + 1/2)) and "cell size times n"
is 2 n / N. Everything is made from integers, so a window keeps its precision at any distance from the origin.
Axis letters: b batch, h w latent cells, p q output rows and columns, s the two nearest cells along an axis.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

TINY_AREA = 1e-9  # keeps the blend defined where a pixel hits the last cell's centre and all four areas vanish


class Axis(NamedTuple):
    """Where `p` output pixels lie along one axis of the latent."""

    index: jax.Array  # [2, p] int32, the cells below and above, kept inside the latent
    rel: jax.Array  # [2, p] float32, relative coordinate to each, times n
    cell: jax.Array  # [] float32, size of an output pixel, times n


def axis(latent: int, size, start=0, length=None, *, xp=np) -> Axis:
    """Locates pixels start .. start + length - 1 of a virtual `size`-pixel side over `latent` cells.

    Args: latent, n; size, N >= 1, and start, any integer, both Python ints or, under xp=jnp, traced int32 scalars
      (then (2 start + 2 length) n must stay below 2^31); length, default size; xp, numpy (exact: int64 and float64,
      rounded once at the end) or jax.numpy.
    Returns: an Axis. Ties (a pixel on a cell's centre: scale 1, odd scales) round toward +, so a hit has weight 1.
    """
    length = size if length is None else length
    whole, real = (np.int64, np.float64) if xp is np else (jnp.int32, jnp.float32)
    twice = (2 * (start + xp.arange(length, dtype=whole)) + 1) * latent - size  # 2 N (u - 1/2)
    below = twice // (2 * size)
    frac = (twice - below * 2 * size).astype(real) / (2 * size)  # u - 1/2 - below, in [0, 1)
    cells = xp.stack([below, below + 1])
    index = xp.clip(cells, 0, latent - 1)
    # a neighbour beyond the border is the edge cell, with the true relative coordinate to it
    rel = 2 * (xp.stack([frac, frac - 1]) + (cells - index).astype(real))
    rel = xp.where((rel == 0) & (cells[1] >= latent), _reference_residue(start, length, size, latent, xp), rel)
    cell = xp.asarray(2 * latent / size)
    return Axis(index.astype(xp.int32), rel.astype(xp.float32), cell.astype(xp.float32))


def _reference_residue(start, length, size, latent: int, xp):
    """What float32 coordinates leave between a pixel and the last cell's centre that it hits, times n: [p].

    There all four areas of the blend vanish, and in the reference implementation its rounding (and TINY_AREA) decides
    the shares. Agreeing with its renders to the last row takes the same residue: exactly 0 at scale 1.
    """
    first, step = (lambda n: xp.asarray(1 / n - 1, xp.float32)), (lambda n: xp.asarray(2 / n, xp.float32))
    pixels = (start + xp.arange(length)).astype(xp.float32) * step(size) + first(size)
    return (pixels - (xp.float32(latent - 1) * step(latent) + first(latent))) * xp.float32(latent)


def nearest(axis: Axis) -> Axis:
    """Keeps only the nearest cell of each pixel: LIIF without local ensemble. Shapes [1, p]."""
    near = (axis.rel[0] >= 1) | (axis.index[0] == axis.index[1])

    def pick(a):
        return jnp.where(near, a[1], a[0])[None]

    return Axis(pick(axis.index), pick(axis.rel), axis.cell)


def blend_weights(rows: Axis, cols: Axis):
    """Returns each neighbour's share, the area of the *opposite* rectangle over the sum of areas: [s, s, p, q]."""
    area = jnp.abs(rows.rel[:, None, :, None] * cols.rel[None, :, None, :]) + TINY_AREA
    return area[::-1, ::-1] / jnp.sum(area, axis=(0, 1))


def _tail(kernels, biases, x, dtype):
    """The MLP after its first affine map, [..., hidden[0]] -> [..., 3]; the last layer in float32."""
    for kernel, bias in zip(kernels[1:-1], biases[1:-1]):
        x = nn.relu(x.astype(dtype)) @ kernel.astype(dtype) + bias.astype(dtype)
    return nn.relu(x.astype(jnp.float32)) @ kernels[-1] + biases[-1]


def select(features, rows, cols, *, products: bool = False):
    """Picks features[:, rows][:, :, cols]: [b h w d], rows [p] and cols [q] -> [b p q d].

    Args: products, by matrices of zeros and ones, whose gradient is a product too; a gather's is a scatter, which
      accelerators compute slowly. Float32 features keep all their bits (precision "highest").
    """
    if not products:
        return features[:, rows[:, None], cols]
    of_row, of_col = (jax.nn.one_hot(i, n, dtype=features.dtype) for i, n in zip((rows, cols), features.shape[1:3]))
    picked = jnp.einsum("ph,bhwd->bpwd", of_row, features, precision="highest")
    return jnp.einsum("qw,bpwd->bpqd", of_col, picked, precision="highest")


class Liif(nn.Module):
    """An MLP of ReLU layers from [feature, relative coordinate, cell size] to RGB, blended over four cells.

    Where `residual`, a cell's first three features are its colour, and the MLP, which starts near zero, adds to it.
    """

    hidden: tuple[int, ...] = (256, 256, 256, 256)
    local_ensemble: bool = True
    cell_decode: bool = True
    features: int = 128  # c of the feature map
    residual: bool = False
    remat: bool = False  # recompute the MLP in the backward pass instead of keeping its activations
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        widths = (self.features + (4 if self.cell_decode else 2), *self.hidden, 3)
        inits = [nn.initializers.he_uniform()] * (len(widths) - 1)
        if self.residual:
            inits[-1] = nn.initializers.normal(0.003)
        self.kernels = [
            self.param(f"kernel_{i}", init, (a, b)) for i, (init, a, b) in enumerate(zip(inits, widths, widths[1:]))
        ]
        self.biases = [self.param(f"bias_{i}", nn.initializers.zeros_init(), (b,)) for i, b in enumerate(widths[1:])]

    def tail(self, x):
        tail = partial(_tail, dtype=self.dtype)
        return (jax.checkpoint(tail) if self.remat else tail)(self.kernels, self.biases, x)

    def query(self, feat, y: Axis, x: Axis):
        """The definition: RGB of one output pixel.

        Args: feat, [h w c]; y and x, Axis of one pixel (leaves [2, 1]; cell []).
        Returns: [3], about [-1, 1].
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
                rgb += share[i, j] * (self.tail(hidden) + (feature[:3] if self.residual else 0))
        return rgb

    def points(self, feat, y: Axis, x: Axis):
        """The definition, vmapped over pixels: feat [h w c]; y, x, Axis over the same p pixels -> [p, 3]."""

        def one(yi, yr, xi, xr):
            return self.query(feat, Axis(yi[:, None], yr[:, None], y.cell), Axis(xi[:, None], xr[:, None], x.cell))

        return jax.vmap(one, in_axes=(1, 1, 1, 1))(y.index, y.rel, x.index, x.rel)

    def project(self, feat):
        """Applies the first layer's feature part once per latent cell instead of four times per pixel.

        Args: feat, [b h w c].
        Returns: [b h w hidden[0]] of the compute type; where residual [b h w hidden[0] + 3], float32, colours last.
        """
        kernel = self.kernels[0][: self.features]
        out = feat.astype(self.dtype) @ kernel.astype(self.dtype) + self.biases[0].astype(self.dtype)
        if not self.residual:
            return out
        return jnp.concatenate([out.astype(jnp.float32), feat[..., :3].astype(jnp.float32)], axis=-1)

    def grid(self, projected, rows: Axis, cols: Axis, *, products: bool = False):
        """The fast path for a regular grid; equals `query` at every pixel up to rounding.

        Args: projected, `project`ed features [b h w d]; rows (p pixels) and cols (q pixels), shared by the batch, or
          with a leading batch axis; products, see `select`: for training on an accelerator.
        Returns: [b p q 3], float32.
        """
        if rows.index.ndim == 3:
            # lifted by hand: `grid` only reads parameters that setup has made
            return jax.vmap(lambda f, r, c: self.grid(f[None], r, c, products=products)[0])(projected, rows, cols)
        if not self.local_ensemble:
            rows, cols = nearest(rows), nearest(cols)
        c = self.features
        of_row = rows.rel[..., None] * self.kernels[0][c]  # s p d
        of_col = cols.rel[..., None] * self.kernels[0][c + 1]  # s q d
        if self.cell_decode:
            of_row += rows.cell * self.kernels[0][c + 2]
            of_col += cols.cell * self.kernels[0][c + 3]
        share, rgb = blend_weights(rows, cols), 0.0
        for i in range(rows.rel.shape[0]):
            for j in range(cols.rel.shape[0]):
                x = select(projected, rows.index[i], cols.index[j], products=products)  # b p q d
                colour = 0
                if self.residual:
                    x, colour = jnp.split(x, [len(self.biases[0])], axis=-1)
                x = x + of_row[i][:, None].astype(self.dtype) + of_col[j].astype(self.dtype)
                rgb += share[i, j][..., None] * (self.tail(x) + colour)
        return rgb

    def __call__(self, feat, rows: Axis, cols: Axis):
        """Renders a window: feat [b h w c]; rows, cols as in `grid` -> [b p q 3]."""
        return self.grid(self.project(feat), rows, cols)
