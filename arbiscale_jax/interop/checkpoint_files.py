"""Reads and writes files of tensors, PyTorch's and safetensors, without running any code that a file contains."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # noqa: F401  (teaches numpy the name bfloat16, which safetensors asks for)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import replacing

from .pickles import stand_ins

_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)  # raised for damaged pickles and archives


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch or .safetensors file.

    A state dict may be the whole file or lie under the key `state_dict` (as in Lightning) or `model`/`sd`. Arrays may
    be views of the file, so copy what is kept.

    Args:
      path: the file.

    Returns:
      A dict from name to array, in float32 for floating types.

    Raises:
      UserError: if the file is missing, cannot be read, holds no tensors, or calls a function.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint file {path}.")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not state:
        raise UserError(f"{path} holds no tensors.")
    return state


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, "np") as file:
            return {name: _as_float32(file.get_tensor(name)) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, TypeError) as e:
        raise UserError(f"{path} cannot be read as a safetensors file: {e}") from e


def _as_float32(array: np.ndarray) -> np.ndarray:
    floating = np.issubdtype(array.dtype, np.floating) or array.dtype.name == "bfloat16"
    return array.astype(np.float32, copy=False) if floating else array


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _import_torch("Reading")
    from torch import serialization

    try:
        names = serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
        with serialization.safe_globals(stand_ins(path, names)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about pickle protocols other than 2
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UserError:
        raise
    except _UNREADABLE as e:
        reason = str(e).strip().split("\n")[0] or type(e).__name__
        raise UserError(f"{path} cannot be read as a PyTorch checkpoint of plain tensors: {reason}") from e
    for keys in (("state_dict",), ("model", "sd")):
        inner = found
        for key in keys:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        found = inner if isinstance(inner, Mapping) else found
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, not a state dict.")
    tensors = {str(k): v.detach() for k, v in found.items() if isinstance(v, torch.Tensor)}
    return {k: (v.float() if v.is_floating_point() else v).numpy() for k, v in tensors.items() if not v.is_complex()}


def _import_torch(doing: str):
    try:
        import torch
    except ImportError as e:
        raise UserError(f"{doing} a PyTorch file needs torch: pip install 'arbiscale_jax[interop]'.") from e
    return torch


SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


def check_suffix(path: Path) -> None:
    """Raises UserError unless `path` ends in one of SUFFIXES."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} does not end in one of {', '.join(SUFFIXES)}, which says how to write it.")


def write_state_dict(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes tensors to a file, complete or not at all.

    In a .ckpt file they lie under the key `state_dict`; in .pt, .pth and .safetensors files they are the whole content.

    Args:
      path: the file; its suffix is one of SUFFIXES.
      state: a dict from name to array.

    Raises:
      UserError: if the suffix is another one, or the file cannot be written.
    """
    check_suffix(path)
    state = {k: np.array(v, order="C") for k, v in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            if path.suffix == ".safetensors":
                save_file(state, part)
            else:
                torch = _import_torch("Writing")
                tensors = {k: torch.from_numpy(v) for k, v in state.items()}
                whole = {"state_dict": tensors, "global_step": 0, "epoch": 0}
                torch.save(whole if path.suffix == ".ckpt" else tensors, part)
    except (OSError, RuntimeError, SafetensorError) as e:
        raise UserError(f"{path} cannot be written ({e}); choose another place or make room.") from e
