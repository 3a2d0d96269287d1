"""Loads a model from disk so that it can run."""

import os

import jax.numpy as jnp
from jax.typing import DTypeLike

from arbiscale_jax.artifacts.registry import read_model
from arbiscale_jax.artifacts.storage import locate

from .model import Model


def load(name: str | os.PathLike, *, dtype: DTypeLike = jnp.float32) -> Model:
    """Loads a model.

    Args:
      name: the name of a bundled model, or the directory of a training run or an exported model.
      dtype: the type in which the networks compute, float32 or bfloat16; weights stay float32.

    Returns:
      The model; for a run, the averaged (EMA) weights of the newest checkpoint.

    Raises:
      UserError: if there is no such model, it is incomplete, or its weights do not fit its config.json.
    """
    return Model(*read_model(name), dtype=dtype, name=locate(name).resolve().name)
