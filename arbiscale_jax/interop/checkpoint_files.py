"""Reads and writes files of tensors, PyTorch's and safetensors, without running any code that a file contains."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # also teaches numpy the name bfloat16, which safetensors asks for
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import replacing

from . import archives
from .pickles import describe, stand_ins
from .wrappers import find_weights, plain_names

_EXOTIC = {  # numpy's types for those of torch that it has not, with torch's type of the same size that it has
    "bfloat16": ("int16", ml_dtypes.bfloat16),
    "float8_e4m3fn": ("uint8", ml_dtypes.float8_e4m3fn),
    "float8_e5m2": ("uint8", ml_dtypes.float8_e5m2),
}


class Weights(NamedTuple):
    """Holds the tensors of a file, as arrays by name, in the types of the file."""

    state: dict[str, np.ndarray]  # the weights; averaged ones take the place of the raw ones if they are asked for
    averaged: bool  # whether the file holds averaged weights under the raw ones' names, and they are in `state`


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch or .safetensors file; see `read_weights`."""
    return read_weights(path).state


def read_weights(path: Path, averaged: bool = False) -> Weights:
    """Reads the tensors of a PyTorch or .safetensors file.

    A state dict may be the whole file or lie under keys such as `state_dict`, `model` or `module`, which `wrappers`
    lists. Names lose the parts that wrappers of networks add, such as module. and _orig_mod. Arrays may be views of
    the file, so copy what is kept.

    Args:
      path: the file.
      averaged: whether to take weights under a key such as `ema` instead of the others, if there are any.

    Returns:
      The tensors; those of complex numbers and sparse ones are left out.

    Raises:
      UserError: if the file is missing, cannot be read, holds no tensors, calls a function, or claims more than it has.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint file {path}.")
    own, average = (_read_safetensors(path), {}) if _is_safetensors(path) else _read_torch(path)
    state = plain_names(own, str(path))
    if averaged and average:
        state |= plain_names(average, str(path))
    if not state:
        raise UserError(f"{path} holds no tensors.")
    return Weights(state, averaged and bool(average))


def _is_safetensors(path: Path) -> bool:
    """Tells a safetensors file from a PyTorch file by its content, and by its suffix if that is neither."""
    with path.open("rb") as file:
        head = file.read(9)
    is_torch = head[:2] in (b"PK", b"\x80\x02")
    return head[8:] == b"{" or (path.suffix.lower() == ".safetensors" and not is_torch)


def is_floating(dtype: np.dtype) -> bool:
    """Tells whether a type has floating-point numbers, those of ml_dtypes included."""
    return np.issubdtype(dtype, np.floating) or dtype.name.startswith(("bfloat", "float"))


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as e:
        raise UserError(f"{path} cannot be read as a safetensors file: {e}") from e


def _read_torch(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the tensors of a PyTorch file and those of their average, which are none in most files."""
    torch = _import_torch("Reading")
    try:
        found = _load(path)
        if not isinstance(found, Mapping):
            raise UserError(f"{path} holds a {type(found).__name__}, not a state dict.")
        own, average = find_weights(found, lambda x: isinstance(x, torch.Tensor))
        return _arrays(own), _arrays(average)
    except UserError:
        raise
    except Exception as e:  # damaged pickles and archives make torch raise errors of any type
        reason = str(e).strip().split("\n")[0] or type(e).__name__
        raise UserError(f"{path} cannot be read as a PyTorch checkpoint of plain tensors: {reason}") from e


def _load(path: Path):
    """Loads a PyTorch file with stand-ins for what it must not call; tensors become views of the file if they can."""
    import torch
    from torch import serialization

    is_archive, safe = zipfile.is_zipfile(path), []
    if is_archive:
        content = describe(archives.read_pickle(path))
        archives.check_storages(path, content.storages)
        safe = stand_ins(path, serialization.get_unsafe_globals_in_checkpoint(path), content.uses)
    with serialization.safe_globals(safe), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about pickle protocols other than 2
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)


def _arrays(found: Mapping) -> dict[str, np.ndarray]:
    """Returns the dense tensors of real numbers in a mapping, as arrays of the same types."""
    import torch

    out = {}
    for name, value in found.items():
        if isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_quantized:
            if exotic := _EXOTIC.get(str(value.dtype).removeprefix("torch.")):
                same, dtype = exotic
                out[str(name)] = value.detach().view(getattr(torch, same)).numpy().view(dtype)
            elif not (value.is_complex() or value.is_meta):
                out[str(name)] = value.detach().numpy()
    return out


def _import_torch(doing: str):
    try:
        import torch
    except ImportError as e:
        raise UserError(f"{doing} a PyTorch file needs torch: pip install 'arbiscale_jax[interop]'.") from e
    return torch


SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


def check_suffix(path: Path) -> None:
    """Raises UserError unless `path` ends in one of SUFFIXES."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} does not end in one of {', '.join(SUFFIXES)}, which says how to write it.")


def check_output_file(path: Path, overwrite: bool) -> None:
    """Raises UserError unless `path` ends in one of SUFFIXES and is not there yet, or may be replaced."""
    check_suffix(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; choose another name for the file.")
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} exists already; give --overwrite (in Python overwrite=True) to replace it, or choose another."
        )


def write_state_dict(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes tensors to a file, complete or not at all.

    In a .ckpt file they lie under the key `state_dict`; in .pt, .pth and .safetensors files they are the whole content.

    Args:
      path: the file; its suffix is one of SUFFIXES, in letters of any case.
      state: a dict from name to array.

    Raises:
      UserError: if the suffix is another one, or the file cannot be written.
    """
    check_suffix(path)
    state = {k: np.array(v, order="C") for k, v in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            if path.suffix.lower() == ".safetensors":
                save_file(state, part)
            else:
                torch = _import_torch("Writing")
                tensors = {k: torch.from_numpy(v) for k, v in state.items()}
                whole = {"state_dict": tensors, "global_step": 0, "epoch": 0}
                torch.save(whole if path.suffix.lower() == ".ckpt" else tensors, part)
    except (OSError, RuntimeError, SafetensorError) as e:
        raise UserError(f"{path} cannot be written ({e}); choose another place or make room.") from e
