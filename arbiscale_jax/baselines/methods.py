"""Lists the methods with which the paper compares (paper 5): their settings, their networks and their weights.

A configuration describes one of them in its part `model.baseline`, a mapping with the fields of DEFAULTS[method] (see
experiments.comparisons).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from arbiscale_jax.experiments.comparisons import DEFAULTS

from .idm_unet import IDM
from .liif_sr import ENCODERS, LiifSR
from .rrdb import RRDBNet
from .sr3_unet import SR3UNet

CHOICES = {"method": tuple(DEFAULTS), "encoder": ENCODERS}  # values of the fields that hold text
DIFFUSION = ("sr3", "idm")  # methods that sample
_SHARED = ("channels", "channel_mult", "num_res_blocks", "attention_levels", "num_groups", "dropout")


def build(fields: Mapping[str, Any]) -> LiifSR | SR3UNet | IDM | RRDBNet:
    """Builds the network of a method.

    Args:
      fields: the part `model.baseline` of a configuration, complete.

    Raises:
      ValueError: if the method is unknown.
    """
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    method = given["method"]
    if method == "liif":
        names = ("channels", "blocks", "convs", "growth", "hidden")
        return LiifSR(encoder_name=given["encoder"], **{name: given[name] for name in names})
    if method == "sr3":
        return SR3UNet(**{name: given[name] for name in _SHARED})
    if method == "idm":
        names = (*_SHARED, "implicit_width", "encoder_channels", "encoder_blocks")
        return IDM(**{name: given[name] for name in names})
    if method == "esrgan":
        return RRDBNet(**{name: given[name] for name in ("features", "growth", "blocks")})
    raise ValueError(f"model.baseline.method is one of {', '.join(DEFAULTS)}, got {method!r}.")


def init(fields: Mapping[str, Any], key) -> dict:
    """Makes random weights of a method's network, a tree; its arguments are those of `build` and a random key."""
    net, lr = build(fields), jnp.zeros((1, 2, 2, 3))
    inputs: tuple[Any, ...] = (lr,)
    if fields["method"] in DIFFUSION:
        side = 2 ** (len(fields["channel_mult"]) - 1)
        x_t, level = jnp.zeros((1, side, side, 3)), jnp.ones(1)
        inputs = (x_t, level, lr, jnp.zeros(1)) if isinstance(net, IDM) else (x_t, level, x_t)
    elif isinstance(net, LiifSR):
        inputs = (lr, (3, 3))
    weights: Any = net.init(key, *inputs)
    return weights["params"]
