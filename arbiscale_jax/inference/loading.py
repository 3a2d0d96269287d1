"""Loads a model from disk so that it can run."""

import os
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from arbiscale_jax.artifacts.registry import read_model
from arbiscale_jax.artifacts.storage import locate
from arbiscale_jax.runtime import compile_cache, xla_flags

from .baseline_model import Baseline
from .model import Model


def load(name: str | os.PathLike, *, dtype: DTypeLike = jnp.float32) -> Any:
    """Loads a model.

    Args:
      name: the name of a bundled model, or the directory of a training run or an exported model.
      dtype: the type in which the networks compute: "float32", "bfloat16", or "tensorfloat32", which is float32 with
        faster, less precise products on GPUs.

    Returns:
      The Model, or a Baseline if it is one of the methods with which the paper compares; for a run, with the averaged
      (EMA) weights of the newest checkpoint.

    Raises:
      UserError: if there is no such model, it is incomplete, or its weights do not fit its config.json.
    """
    compile_cache.enable()
    xla_flags.prefer_eigen()
    config, params, scale_factor = read_model(name)
    shown = locate(name).resolve().name
    if "baseline" in config:
        return Baseline(config, params, dtype, shown)
    return Model(config, params, scale_factor, dtype=dtype, name=shown)
