"""Computes distances between two sets of images from features [n, d]: Fréchet, kernel (MMD), precision and recall."""

import math
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KID_SUBSETS, KID_SIZE = 100, 1000  # as in Bińkowski et al. 2018
NEIGHBORS = 3  # as in Kynkäänniemi et al. 2019
_BLOCK = 1024  # number of rows of a distance matrix in memory at a time


class Moments(NamedTuple):
    """Holds the mean and the scatter matrix of n feature vectors, in float64.

    The moments of two sets can be joined exactly, so features need not be in memory together.
    """

    n: int  # number of vectors
    mean: np.ndarray  # [d]
    scatter: np.ndarray  # [d d], the sum of (x - mean)(x - mean)^T

    @property
    def covariance(self) -> np.ndarray:
        """Returns the unbiased covariance, [d, d]."""
        return self.scatter / (self.n - 1)


def moments(blocks: Iterable[np.ndarray]) -> Moments:
    """Computes the moments of features from blocks [n_i, d], one at a time, with the update of Chan et al."""
    total = None
    for block in blocks:
        block = np.asarray(block, np.float64)
        mean = block.mean(axis=0)
        new = Moments(len(block), mean, (block - mean).T @ (block - mean))
        total = new if total is None else _join(total, new)
    if total is None:
        raise ValueError("There are no features to compute moments of.")
    return total


def _join(a: Moments, b: Moments) -> Moments:
    n, delta = a.n + b.n, b.mean - a.mean
    return Moments(n, a.mean + delta * (b.n / n), a.scatter + b.scatter + np.outer(delta, delta) * (a.n * b.n / n))


def frechet_distance(a: Moments, b: Moments) -> float:
    """Computes the Fréchet distance of two Gaussians (Heusel et al. 2017).

    It is |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). The trace of the last term is the sum of the square roots
    of the eigenvalues of the symmetric matrix C_a^(1/2) C_b C_a^(1/2). That is exact for singular covariances too,
    which fewer images than features give, and needs no added offset.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sum(np.sqrt(np.clip(shared, 0, None)))
    return float(np.sum(np.square(a.mean - b.mean)) + trace)


def kernel_distance(
    a: np.ndarray, b: np.ndarray, subsets: int = KID_SUBSETS, size: int = KID_SIZE, seed: int = 0
) -> tuple[float, float]:
    """Computes the kernel distance (KID, Bińkowski et al. 2018), the unbiased MMD^2 with the kernel (x.y / d + 1)^3.

    Args:
      a: features [n, d].
      b: features [m, d].
      subsets: the number of pairs of random subsets.
      size: the size of a subset; sets that are no larger are compared once, as a whole.
      seed: the seed of the random choice.

    Returns:
      The mean over the subsets.
      Their standard deviation, or nan without subsets.
    """
    size = min(size, len(a), len(b))
    if size == len(a) == len(b):
        return _mmd2(a, b), math.nan
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        found.append(_mmd2(*(x[rng.choice(len(x), size, replace=False)] for x in (a, b))))
    return float(np.mean(found)), float(np.std(found))


def _mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the unbiased estimate of MMD^2 for the cubic kernel, in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m, d = len(a), len(b), a.shape[1]

    def kernel(x, y):
        k = x @ y.T / d + 1
        return k * k * k  # 20 times faster than k**3

    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * ab.mean())


def precision_recall(real: np.ndarray, fake: np.ndarray, neighbors: int = NEIGHBORS) -> tuple[float, float]:
    """Computes precision and recall from nearest-neighbour manifolds (Kynkäänniemi et al. 2019).

    The manifold of a set is the union of balls around its features, each of which reaches the k-th nearest other
    feature.

    Args:
      real: features of real images, [n, d].
      fake: features of generated images, [m, d].
      neighbors: the number k.

    Returns:
      The share of fakes inside the manifold of the reals (precision).
      The share of reals inside the manifold of the fakes (recall).
    """
    center = real.mean(axis=0, dtype=np.float64).astype(np.float32)  # float32 distances are most exact near the origin
    real, fake = (np.asarray(x, np.float32) - center for x in (real, fake))
    return _share_within(fake, real, neighbors), _share_within(real, fake, neighbors)


def _share_within(points: np.ndarray, manifold: np.ndarray, neighbors: int) -> float:
    radii = np.concatenate([np.asarray(r) for r in _blocks(partial(_radii, neighbors=neighbors), manifold, manifold)])
    inside = [np.asarray(x) for x in _blocks(partial(_inside, radii=jnp.asarray(radii)), points, manifold)]
    return float(np.mean(np.concatenate(inside)))


def _blocks(fn, points: np.ndarray, others: np.ndarray):
    """Applies fn(block, others) to blocks of rows; the last one is padded, so that one compiled program serves all."""
    manifold, rows = jnp.asarray(others), min(_BLOCK, len(points))
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        padded = np.pad(block, ((0, rows - len(block)), (0, 0)))
        yield fn(jnp.asarray(padded), manifold)[: len(block)]


@partial(jax.jit, static_argnames="neighbors")
def _radii(block, others, *, neighbors: int):
    """Computes the squared distances to the k-th nearest other point; a point of the set is nearest to itself."""
    nearest, _ = jax.lax.top_k(-_squared_distances(block, others), min(neighbors + 1, len(others)))
    return -nearest[:, -1]


@jax.jit
def _inside(block, others, radii):
    return jnp.any(_squared_distances(block, others) <= radii[None], axis=1)


def _squared_distances(a, b):
    products = jnp.matmul(a, b.T, precision="highest")
    squares = jnp.sum(jnp.square(a), axis=1)[:, None] + jnp.sum(jnp.square(b), axis=1)[None]
    return jnp.maximum(squares - 2 * products, 0)
