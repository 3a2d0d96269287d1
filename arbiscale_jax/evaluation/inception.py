"""Computes the 2048 features of Inception-v3 in the variant that defines FID, taken after the last average pooling.

It is the network of the TensorFlow graph inception-2015-12-05 (Szegedy et al. 2015; Heusel et al. 2017), whose weights
pytorch-fid converted. It differs from torchvision's in two ways: average pooling does not count the padding, and the
last block pools by the maximum. Images are resized to 299 as that graph does it: bilinear, aligned at the corner,
without antialiasing.
"""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.interop.checkpoint_files import read_state_dict
from arbiscale_jax.runtime.whole_files import replacing

SIDE, DIM = 299, 2048
NAME = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{NAME}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_BN_EPSILON = 1e-3


def layers() -> Iterator[tuple[str, int, int, tuple[int, int]]]:
    """Lists the convolutions, each as name, input channels, output channels and kernel (height, width)."""
    yield "Conv2d_1a_3x3", 3, 32, (3, 3)
    yield "Conv2d_2a_3x3", 32, 32, (3, 3)
    yield "Conv2d_2b_3x3", 32, 64, (3, 3)
    yield "Conv2d_3b_1x1", 64, 80, (1, 1)
    yield "Conv2d_4a_3x3", 80, 192, (3, 3)
    for block, width, pooled in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
        yield f"{block}.branch1x1", width, 64, (1, 1)
        yield f"{block}.branch5x5_1", width, 48, (1, 1)
        yield f"{block}.branch5x5_2", 48, 64, (5, 5)
        yield f"{block}.branch3x3dbl_1", width, 64, (1, 1)
        yield f"{block}.branch3x3dbl_2", 64, 96, (3, 3)
        yield f"{block}.branch3x3dbl_3", 96, 96, (3, 3)
        yield f"{block}.branch_pool", width, pooled, (1, 1)
    yield "Mixed_6a.branch3x3", 288, 384, (3, 3)
    yield "Mixed_6a.branch3x3dbl_1", 288, 64, (1, 1)
    yield "Mixed_6a.branch3x3dbl_2", 64, 96, (3, 3)
    yield "Mixed_6a.branch3x3dbl_3", 96, 96, (3, 3)
    for block, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        yield f"{block}.branch1x1", 768, 192, (1, 1)
        yield f"{block}.branch7x7_1", 768, inner, (1, 1)
        yield f"{block}.branch7x7_2", inner, inner, (1, 7)
        yield f"{block}.branch7x7_3", inner, 192, (7, 1)
        yield f"{block}.branch7x7dbl_1", 768, inner, (1, 1)
        yield f"{block}.branch7x7dbl_2", inner, inner, (7, 1)
        yield f"{block}.branch7x7dbl_3", inner, inner, (1, 7)
        yield f"{block}.branch7x7dbl_4", inner, inner, (7, 1)
        yield f"{block}.branch7x7dbl_5", inner, 192, (1, 7)
        yield f"{block}.branch_pool", 768, 192, (1, 1)
    yield "Mixed_7a.branch3x3_1", 768, 192, (1, 1)
    yield "Mixed_7a.branch3x3_2", 192, 320, (3, 3)
    yield "Mixed_7a.branch7x7x3_1", 768, 192, (1, 1)
    yield "Mixed_7a.branch7x7x3_2", 192, 192, (1, 7)
    yield "Mixed_7a.branch7x7x3_3", 192, 192, (7, 1)
    yield "Mixed_7a.branch7x7x3_4", 192, 192, (3, 3)
    for block, width in (("Mixed_7b", 1280), ("Mixed_7c", 2048)):
        yield f"{block}.branch1x1", width, 320, (1, 1)
        yield f"{block}.branch3x3_1", width, 384, (1, 1)
        yield f"{block}.branch3x3_2a", 384, 384, (1, 3)
        yield f"{block}.branch3x3_2b", 384, 384, (3, 1)
        yield f"{block}.branch3x3dbl_1", width, 448, (1, 1)
        yield f"{block}.branch3x3dbl_2", 448, 384, (3, 3)
        yield f"{block}.branch3x3dbl_3a", 384, 384, (1, 3)
        yield f"{block}.branch3x3dbl_3b", 384, 384, (3, 1)
        yield f"{block}.branch_pool", width, 192, (1, 1)


def fold(state: Mapping[str, np.ndarray], where: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Turns a state dict into kernels [h w i o] and biases [o] by layer name, with batch normalisation folded in.

    Args:
      state: the state dict.
      where: what error messages call its file.

    Returns:
      A dict from layer name to (kernel, bias), in float32.

    Raises:
      UserError: if an array is missing or has another shape; the message names the first one.
    """
    out = {}
    for name, channels, width, kernel in layers():
        expected = {f"{name}.conv.weight": (width, channels, *kernel)}
        expected |= {f"{name}.bn.{x}": (width,) for x in ("weight", "bias", "running_mean", "running_var")}
        for key, shape in expected.items():
            if key not in state or state[key].shape != shape:
                found = state[key].shape if key in state else "missing"
                raise UserError(f"{where} is not FID's Inception-v3: {key} is {found}, not {shape}; give {NAME}.")
        weight, gamma, beta, mean, var = (np.asarray(state[key], np.float64) for key in expected)
        factor = gamma / np.sqrt(var + _BN_EPSILON)
        kernel = weight.transpose(2, 3, 1, 0) * factor
        out[name] = (kernel.astype(np.float32), (beta - mean * factor).astype(np.float32))
    return out


def load(path: str | os.PathLike = "") -> dict:
    """Reads the weights from a .pth or .safetensors file, by default from the cached or downloaded one.

    Raises:
      UserError: if the file is missing or of another network, or the download fails.
    """
    path = Path(path) if path else download()
    return fold(read_state_dict(path), str(path))


def download() -> Path:
    """Returns the file of weights in the cache folder (ARBISCALE_CACHE, see cli.program), downloading it if needed.

    Raises:
      UserError: if the download fails or the file's SHA-256 is wrong.
    """
    folder = Path(os.environ.get("ARBISCALE_CACHE") or Path.home() / ".cache" / "arbiscale_jax").expanduser()
    path = folder / NAME
    advice = f"download {URL} elsewhere and give its place as --inception-weights=FILE"
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(URL, timeout=30) as response, replacing(path) as part:
                part.write_bytes(response.read())
        except (urllib.error.URLError, OSError) as e:
            reason = getattr(e, "reason", None) or e
            raise UserError(f"The weights of Inception-v3 cannot be downloaded ({reason}); {advice}.") from e
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != SHA256:
        raise UserError(f"{path} is damaged (SHA-256 {found[:8]}..., not {SHA256[:8]}...): delete it, or {advice}.")
    return path


def apply(weights: Mapping, images):
    """Computes the features [b 2048] of images [b h w 3] in 0..255 of any size."""
    x = resize_299(jnp.asarray(images, jnp.float32))
    return pooled_features(weights, (x - 128) / 128)


def resize_299(x):
    """Resizes [b h w 3] as TensorFlow 1's resize_bilinear: pixel i of the output lies at i * in / out of the input."""
    rows, cols = (jnp.asarray(_bilinear(side), jnp.float32) for side in x.shape[1:3])
    return jnp.einsum("yh,bhwc,xw->byxc", rows, x, cols, precision="highest")


def _bilinear(side: int) -> np.ndarray:
    """Returns the matrix [299, side] of this interpolation along one axis."""
    at = np.arange(SIDE) * (side / SIDE)
    low = np.floor(at).astype(int)
    out = np.zeros((SIDE, side))
    np.add.at(out, (np.arange(SIDE), low), 1 - (at - low))
    np.add.at(out, (np.arange(SIDE), np.minimum(low + 1, side - 1)), at - low)
    return out


def pooled_features(weights: Mapping, x):
    """Runs the network up to the average pooling on x [b h w 3] in about [-1, 1], at least 75 x 75: [b 2048]."""

    def conv(name, x, stride=1, padding="VALID"):
        kernel, bias = weights[name]
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=dims, precision="highest"
        )
        return jax.nn.relu(x + bias.reshape(1, 1, 1, -1))

    def chain(x, *names):  # with stride 1, so that the size stays
        for name in names:
            x = conv(name, x, padding="SAME")
        return x

    def block(name, x, *branches):
        outs = [chain(x, *(f"{name}.{layer}" for layer in branch)) for branch in branches]
        return jnp.concatenate(outs, axis=-1)

    def mixed_5(name, x):
        double = [f"branch3x3dbl_{i}" for i in (1, 2, 3)]
        out = block(name, x, ["branch1x1"], ["branch5x5_1", "branch5x5_2"], double)
        return jnp.concatenate([out, chain(_mean_pool(x), f"{name}.branch_pool")], axis=-1)

    def mixed_6(name, x):
        single, double = ([f"branch7x7{kind}_{i}" for i in range(1, n + 1)] for kind, n in (("", 3), ("dbl", 5)))
        out = block(name, x, ["branch1x1"], single, double)
        return jnp.concatenate([out, chain(_mean_pool(x), f"{name}.branch_pool")], axis=-1)

    def mixed_7(name, x, pool):
        single = block(name, chain(x, f"{name}.branch3x3_1"), ["branch3x3_2a"], ["branch3x3_2b"])
        double = chain(x, f"{name}.branch3x3dbl_1", f"{name}.branch3x3dbl_2")
        double = block(name, double, ["branch3x3dbl_3a"], ["branch3x3dbl_3b"])
        outs = [chain(x, f"{name}.branch1x1"), single, double, chain(pool(x), f"{name}.branch_pool")]
        return jnp.concatenate(outs, axis=-1)

    x = conv("Conv2d_1a_3x3", x, stride=2)
    x = chain(conv("Conv2d_2a_3x3", x), "Conv2d_2b_3x3")
    x = conv("Conv2d_3b_1x1", _max_pool(x, 2, "VALID"))
    x = _max_pool(conv("Conv2d_4a_3x3", x), 2, "VALID")
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = mixed_5(name, x)
    double = chain(x, "Mixed_6a.branch3x3dbl_1", "Mixed_6a.branch3x3dbl_2")
    outs = [conv("Mixed_6a.branch3x3", x, 2), conv("Mixed_6a.branch3x3dbl_3", double, 2), _max_pool(x, 2, "VALID")]
    x = jnp.concatenate(outs, axis=-1)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = mixed_6(name, x)
    single = conv("Mixed_7a.branch3x3_2", chain(x, "Mixed_7a.branch3x3_1"), 2)
    double = conv("Mixed_7a.branch7x7x3_4", chain(x, *(f"Mixed_7a.branch7x7x3_{i}" for i in (1, 2, 3))), 2)
    x = jnp.concatenate([single, double, _max_pool(x, 2, "VALID")], axis=-1)
    x = mixed_7("Mixed_7b", x, _mean_pool)
    x = mixed_7("Mixed_7c", x, lambda x: _max_pool(x, 1, "SAME"))
    return jnp.mean(x, axis=(1, 2))


def _max_pool(x, stride: int, padding: str):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _mean_pool(x):
    """Averages over 3 x 3 pixels with stride 1; the padding does not count."""

    def total(x):
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1)))
