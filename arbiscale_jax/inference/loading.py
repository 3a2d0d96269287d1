"""Loads a model from disk so that it can run."""

import os

import jax.numpy as jnp
from jax.typing import DTypeLike

from arbiscale_jax.artifacts.registry import read_model
from arbiscale_jax.artifacts.storage import locate
from arbiscale_jax.runtime import compile_cache

from .model import Model


def load(name: str | os.PathLike, *, dtype: DTypeLike = jnp.float32) -> Model:
    """Loads a model.

    Args:
      name: the name of a bundled model, or the directory of a training run or an exported model.
      dtype: the type in which the networks compute: "float32", "bfloat16", or "tensorfloat32", which is float32 with
        faster, less precise products on GPUs.

    Returns:
      The model; for a run, the averaged (EMA) weights of the newest checkpoint.

    Raises:
      UserError: if there is no such model, it is incomplete, or its weights do not fit its config.json.
    """
    compile_cache.enable()
    return Model(*read_model(name), dtype=dtype, name=locate(name).resolve().name)
