"""Checks by names and shapes, before anything is compiled, that weights fit the networks of a configuration."""

import functools
import hashlib
import json
from collections.abc import Mapping
from textwrap import shorten

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from arbiscale_jax import baselines, models
from arbiscale_jax.errors import UserError

from .storage import flatten

LAYOUT = 1  # version of the weights' names and shapes; raising it makes every stored model be checked again
_NO_NETWORK = (FlaxError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)  # raised by bad sizes


def network_shapes(model: Mapping, tree: str) -> dict:
    """Returns the shapes of a network's weights without computing anything.

    A second call for the same networks is quick.

    Args:
      model: the `model` part of a configuration.
      tree: first_stage, unet or baseline.

    Returns:
      The tree of weights, as ShapeDtypeStructs.

    Raises:
      ValueError: if no such network can be built.
    """
    return _shapes(_networks(model), tree)


def _networks(model: Mapping) -> str:
    """Returns, as text, the part of a configuration that decides the shapes of the weights."""
    if "baseline" in model:
        return json.dumps({"baseline": model["baseline"]}, sort_keys=True)
    shaping = {name: model[name] for name in ("first_stage", "liif", "unet")}
    return json.dumps({**shaping, "condition": {"enabled": model["condition"]["enabled"]}}, sort_keys=True)


@functools.lru_cache(maxsize=8)  # tracing a large network takes seconds
def _shapes(networks: str, tree: str) -> dict:
    model = json.loads(networks)

    def init():
        key = jax.random.key(0)
        if tree == "baseline":
            return {"params": baselines.init(model["baseline"], key)}
        channels = model["first_stage"]["z_channels"]
        if tree == "first_stage":
            side, one = models.spatial_factor(model), models.axis(1, 1)
            return models.build_first_stage(model).init(key, jnp.zeros((1, side, side, 3)), one, one)
        side = 2 ** (len(model["unet"]["channel_mult"]) - 1)
        z = jnp.zeros((1, side, side, channels))
        condition = z if model["condition"]["enabled"] else None
        return models.build_unet(model).init(key, z, jnp.zeros(1, jnp.int32), condition)

    try:
        return jax.eval_shape(init)["params"]
    except _NO_NETWORK as e:
        raise ValueError(shorten(str(e), 200).rstrip(".") or type(e).__name__) from e


def fingerprint(model: Mapping, weights: Mapping) -> str:
    """Returns a SHA-256 over a configuration's networks and the names and shapes of their weights.

    Where the fingerprint is known, `check_fit` can be left out; its tracing takes longer than reading a small model.

    Args:
      model: the `model` part of a config.json, as the file has it.
      weights: a tree of arrays.
    """
    shapes = sorted((name, list(np.shape(value))) for name, value in flatten(weights).items())
    return hashlib.sha256(json.dumps([LAYOUT, _networks(model), shapes]).encode()).hexdigest()


def check_fit(given: Mapping, shapes: Mapping, source: str, config: str, advice: str) -> None:
    """Checks that weights fit the networks; a network may be absent, but only as a whole.

    Args:
      given: the weights, a tree of arrays.
      shapes: the networks' weights, a tree of arrays or ShapeDtypeStructs.
      source: what error messages call the place of the weights.
      config: what error messages call the description of the networks.
      advice: what error messages tell the user to do.

    Raises:
      UserError: if a weight is unknown to the networks, missing or of another shape; the message names the first one.
    """
    given, shapes = ({k: np.shape(x) for k, x in flatten(tree).items()} for tree in (given, shapes))
    networks = {key.split("/")[0] if key.startswith("unet") else "/".join(key.split("/")[:2]) for key in given}
    for key, shape in given.items():
        if key not in shapes:
            raise UserError(f"{source} holds the weight {key} {shape}, which the networks of {config} lack; {advice}.")
        if shape != shapes[key]:
            raise UserError(f"Weight {key} of {source} is {shape} where {config} needs {shapes[key]}; {advice}.")
    for key, shape in shapes.items():
        if key not in given and any(key.startswith(n + "/") for n in networks):
            raise UserError(f"{source} lacks the weight {key}, which {config} needs with shape {shape}; {advice}.")
