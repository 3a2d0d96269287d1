"""Trains the methods with which the paper compares (baselines/), each with its own loss, in one stage for all."""

from arbiscale_jax.errors import UserError

from . import pixel_denoising, regression, relativistic
from .stage import Stage

_STAGES = {
    "liif": regression.make_stage,
    "sr3": pixel_denoising.make_stage,
    "idm": pixel_denoising.make_stage,
    "esrgan": relativistic.make_stage,
}


def make_stage(config) -> Stage:
    """Builds the stage of config.model.baseline.method; UserError if it is unknown, or a field does not fit."""
    method = config.model.baseline.method if "baseline" in config.model else ""
    if method not in _STAGES:
        raise UserError(f"model.baseline.method is one of {', '.join(_STAGES)}, got {method!r}.")
    if not config.data.lr_size:
        raise UserError("The stage baseline needs LR images; set data.lr_size.")
    return _STAGES[method](config)
