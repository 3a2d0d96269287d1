"""Checks that the `model` part of a config.json has the fields of the base configuration, with fitting values."""

import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

from arbiscale_jax import baselines, diffusion, models
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments import get_base_config

CHOICES = {
    **{f"model.baseline.{name}": choices for name, choices in baselines.CHOICES.items()},
    "model.first_stage.architecture": models.FIRST_STAGES,
    "model.first_stage.decoder": models.DECODERS,
    "model.first_stage.decoder_attention": models.DECODER_ATTENTION,
    "model.first_stage.norm": models.NORMS,
    "model.unet.architecture": models.UNETS,
    "model.unet.norm": models.NORMS,
    "model.condition.interpolation": models.METHODS,
    "model.sampling.sampler": diffusion.SAMPLERS,
    "model.sampling.statistics": models.STATISTICS,
}
LEAST = {  # least values of whole numbers; it is 0 for others, and building the networks checks the rest
    "model.schedule.timesteps": 2,
    "model.sampling.steps": 1,
    "model.sampling.size": 1,
}
A_LEVEL = ("model.unet.num_res_blocks",)  # fields that hold a whole number or a list of one per level
OF_WORDS = tuple(f"model.unet.labels.{name}" for name in ("styles", "words", "examples"))  # fields that list texts
OBJECT = "an object of fields"


def check_model(config: Mapping, path: Path) -> dict:
    """Checks the field `model` of a config.json and adds the fields that an earlier version did not have.

    Args:
      config: the content of the file.
      path: the file, which error messages name.

    Returns:
      The field `model`, complete.

    Raises:
      UserError: if a field is missing, unknown or of another kind; the message names it and says what was expected.
    """
    base, model = get_base_config().model.to_dict(), config.get("model", {})
    if isinstance(model, dict) and "baseline" in model:
        section = model["baseline"]
        method = section.get("method") if isinstance(section, dict) else None
        method = method if method in baselines.DEFAULTS else next(iter(baselines.DEFAULTS))  # any shows the error
        _check({"model": model}, {"model": {"baseline": baselines.DEFAULTS[method]}}, "", path)
        return model
    if isinstance(model, dict) and all(isinstance(section, dict) for section in model.values()):
        model = models.complete(model)
    _check({"model": model} if "model" in config else {}, {"model": base}, "", path)
    try:
        diffusion.make_alpha_bar(**model["schedule"])
    except (ValueError, MemoryError) as e:
        raise UserError(f"model.schedule in {path} gives no noise schedule ({str(e).rstrip('.')}); correct it.") from e
    return model


def _check(section: Mapping, base: Mapping, prefix: str, path: Path) -> None:
    """Raises UserError unless `section` has exactly the fields of `base`, each with a value like its default."""
    for key, value in section.items():
        if key not in base:
            raise UserError(
                f"{path} has the unknown field {prefix}{key} = {_shown(value)}, where {', '.join(base)} are expected; "
                "correct it, or use the version of arbiscale_jax that wrote it."
            )
    for key, default in base.items():
        name = prefix + key
        kind = expected(name, default)
        if key not in section:
            raise UserError(f"{path} lacks the field {name}, {kind}; restore the file, or export or train again.")
        value = section[key]
        if not _fits(name, default, value):
            raise UserError(f"{name} in {path} is {_shown(value)}, where {kind} is expected; restore or correct it.")
        if isinstance(default, Mapping):
            _check(value, default, name + ".", path)


def expected(name: str, default) -> str:
    """Describes in words what the field of this dotted name and default may hold."""
    if name in CHOICES:
        return f"one of {', '.join(CHOICES[name])}"
    if name in A_LEVEL:
        return "a whole number or a list of them"
    if name in OF_WORDS:
        return "a list of texts, none of them twice"
    words = {bool: "true or false", int: f"a whole number >= {LEAST.get(name, 0)}", float: "a number", tuple: "a list"}
    return OBJECT if isinstance(default, Mapping) else words[type(default)]


def _fits(name: str, default, value) -> bool:
    if name in CHOICES:
        return value in CHOICES[name]
    if name in A_LEVEL and isinstance(value, list | tuple):
        return all(_is_whole(x, 1) for x in value)
    if name in OF_WORDS:
        texts = isinstance(value, list | tuple) and all(isinstance(x, str) and x for x in value)
        return texts and (len(set(value)) == len(value) or name.endswith("examples"))
    if isinstance(default, Mapping):
        return isinstance(value, Mapping)
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(_is_number(x) for x in value)
    return _is_whole(value, LEAST.get(name, 0)) if isinstance(default, int) else _is_number(value)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value, least: int) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= least


def _shown(value) -> str:
    return shorten(repr(value), 60, placeholder=" ...")
