"""Reads and writes parameter trees as safetensors files, whose keys are paths joined by '/'; no pickle is involved."""

import hashlib
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import replacing

HALF = (np.float16, ml_dtypes.bfloat16)
UNREADABLE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError)  # unknown types, odd names


def save_weights(path: Path, tree: dict, dtype=None) -> None:
    """Writes a nested dict of arrays to `path`, complete or not at all, floating ones as `dtype` if it is given."""
    flat = {}
    for key, value in traverse_util.flatten_dict(tree, sep="/").items():
        value = np.asarray(value)
        if dtype is not None and np.issubdtype(value.dtype, np.floating) and value.ndim > 0:
            value = value.astype(dtype)
        flat[key] = np.ascontiguousarray(value).reshape(value.shape)  # ascontiguousarray makes scalars one-dimensional
    with replacing(Path(path)) as part:
        save_file(flat, part)


def hash_weights(tree) -> str:
    """Returns a SHA-256 over the places, types, shapes and values of any tree of arrays."""
    found = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(tree):
        value = np.asarray(value)
        found.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape} ".encode())
        found.update(value.tobytes())
    return found.hexdigest()


def load_weights(path: Path) -> dict:
    """Reads a nested dict of numpy arrays; arrays in half precision become float32.

    Raises:
      UserError: if the file is missing, damaged or not a safetensors file, or its names make no tree.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no weights file {path}; is the folder a complete exported model or run?")
    try:
        flat = load_file(path)
        flat = {k: v.astype(np.float32) if v.dtype in HALF else v for k, v in flat.items()}
        return traverse_util.unflatten_dict(flat, sep="/")
    except UNREADABLE as e:
        raise UserError(f"{path} is not a readable safetensors file ({e}); copy or export it again.") from e


def check_floating(tree: dict, path: Path) -> None:
    """Raises UserError if an array of a model's weights holds other than floating-point numbers."""
    for key, value in traverse_util.flatten_dict(tree, sep="/").items():
        if (dtype := np.asarray(value).dtype).kind in "biuc":
            raise UserError(
                f"Weight {key} of {path} has the type {dtype}, where floating-point numbers are expected; copy or "
                "export the file again."
            )
