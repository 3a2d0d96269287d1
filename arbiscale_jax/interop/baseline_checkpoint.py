"""Reads published checkpoints of the methods with which the paper compares: LIIF, SR3, IDM and ESRGAN."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arbiscale_jax.baselines import DEFAULTS
from arbiscale_jax.inference import Baseline

from .checkpoint_files import read_weights
from .diffusers_layout import load_idm, load_sr3
from .liif_layout import load_liif
from .rrdb_layout import load_rrdb

_LOADERS = {"liif": load_liif, "sr3": load_sr3, "idm": load_idm, "esrgan": load_rrdb}


def is_baseline(arch: Any) -> bool:
    """Tells whether `arch`, which names an architecture, is the name of one of these methods."""
    return isinstance(arch, str) and arch in _LOADERS


def read_baseline(path: str | Path, method: str, ema: bool = False) -> tuple[dict, dict]:
    """Reads a checkpoint file (.pth, .pt or .safetensors); no code in it is run.

    What a state dict does not say is that of the published models: the scale, the noise schedule and the groups of
    norms of SR3 and IDM.

    Args:
      path: the file.
      method: liif, sr3, idm or esrgan.
      ema: whether to take averaged weights, if the file has them beside the others.

    Returns:
      The `model` part of a configuration, {"baseline": ...}.
      The weights, {"baseline": ...}.

    Raises:
      UserError: if the file cannot be read, or a tensor is missing, unknown or of another shape.
    """
    state: Mapping = read_weights(Path(path), ema).state
    fields, params = _LOADERS[method](state)
    known = {"encoder" if name == "encoder_name" else name: value for name, value in fields.items()}
    known = {name: value for name, value in known.items() if name in DEFAULTS[method]}
    return {"baseline": DEFAULTS[method] | known}, {"baseline": params}


def load_baseline(path: str | Path, method: str, ema: bool = False) -> Baseline:
    """Loads a checkpoint as a model that upscales; arguments and errors are those of `read_baseline`."""
    return Baseline(*read_baseline(path, method, ema), name=Path(path).stem)
