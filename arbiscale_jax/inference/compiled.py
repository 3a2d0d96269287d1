"""Finds the networks of a configuration again, with their compiled programs, and which layers compute in few bits."""

import json
from collections.abc import Mapping
from functools import lru_cache

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from arbiscale_jax import models

from .networks import PRECISIONS, Networks


@lru_cache(maxsize=32)
def _networks(config: str, dtype: str, precision: str) -> Networks:
    return Networks(json.loads(config), dtype, precision)


def get_networks(config: Mapping, dtype: DTypeLike = jnp.float32, precision: str = "highest") -> Networks:
    """Returns the networks of a configuration; those of an equal one, with its compiled programs, are found again.

    Args:
      config: the `model` part of a configuration.
      dtype: the type in which the networks compute.
      precision: one of PRECISIONS.

    Raises:
      ValueError: if the configuration or the precision is impossible.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"The precision is one of {', '.join(PRECISIONS)}, got {precision!r}.")
    name = json.dumps(models.complete(config), sort_keys=True, default=dict)  # dict is for ConfigDicts
    return _networks(name, jnp.dtype(dtype).name, precision)


def narrow_layers(networks: Networks, params: Mapping) -> set[tuple[str, ...]]:
    """Returns the places in `params` of the convolutions and dense layers that compute in networks.dtype."""
    found, part = set(), ""

    def intercept(call, args, kwargs, context):
        layer = context.module
        if isinstance(layer, (nn.Conv, nn.Dense)) and layer.dtype == networks.dtype:
            found.add((part, *layer.path))
        return call(*args, **kwargs)

    channels, side = networks.config["first_stage"]["z_channels"], 16 * networks.factor
    z = jax.ShapeDtypeStruct((1, 16, 16, channels), jnp.float32)
    x, t = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    c = z if networks.config["condition"]["enabled"] else None
    with nn.intercept_methods(intercept):
        for part, needed, method, given in (
            ("first_stage", {"encoder"}, networks.posterior, (x,)),
            ("first_stage", {"decoder", "liif"}, networks.features, (z,)),
            ("unet", set(), networks.eps, (z, t, c)),
        ):
            if part in params and needed <= set(params[part]):
                jax.eval_shape(method, {**params, "scale_factor": jnp.float32(1)}, *given)
    return found
