"""Builds the stages of training, each from a configuration alone (see stage.Stage)."""

from arbiscale_jax.errors import UserError

from . import alignment, compared, denoising, reconstruction
from .stage import Stage

STAGES = {
    "first_stage": reconstruction.make_stage,
    "diffusion": denoising.make_stage,
    "align": alignment.make_stage,
    "baseline": compared.make_stage,
}


def build_stage(config) -> Stage:
    """Builds the stage that `config` names, and raises UserError if there is no such stage or a field does not fit."""
    if config.stage not in STAGES:
        raise UserError(f"stage is one of {', '.join(STAGES)}, got {config.stage!r}.")
    return STAGES[config.stage](config)
