"""Defines the options of sampling: what callers may give, and the record of what counts."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, NamedTuple, TypedDict

from arbiscale_jax import diffusion, models
from arbiscale_jax.errors import UserError

from .checks import whole


class SamplingOptions(TypedDict, total=False):
    """Says how a latent is sampled; for an absent option or None, the model's own setting (config.sampling) counts."""

    steps: int | None
    """The number of evaluations of the U-Net."""
    sampler: str | None
    """One of diffusion.SAMPLERS."""
    eta: float | None
    """The share of the noise that DDIM adds in each step, 0 to 1."""
    start: float | None
    """Where sampling starts: 0 means from noise, s in (0, 1] at time s T from the noised condition."""
    restore: float | None
    """How much of the input's noise and compression is cleaned away, 0 to 1, for a model that is told so."""
    statistics: str | None
    """Whose statistics norms use where a picture is cut into windows, one of models.STATISTICS."""


class UpscaleOptions(SamplingOptions, total=False):
    """Lists all options of `Model.upscale`."""

    seed: int
    """The seed of the noise, a whole number >= 0 of any size, by default 0; answer i depends on (seed, i) alone."""
    refine: int | None
    """The number of rounds of back-projection, by default the model's own."""
    progress: Callable[[int, int], object] | None
    """A function that is called with (done, total) after each part of the work."""


class GenerateOptions(TypedDict, total=False):
    """Lists the options of `Model.generate`; None or an absent option means the model's own setting."""

    seed: int
    """The seed of the noise, a whole number >= 0 of any size, by default 0; image i depends on (seed, i) alone."""
    steps: int | None
    """The number of evaluations of the U-Net."""
    sampler: str | None
    """One of diffusion.SAMPLERS."""
    eta: float | None
    """The share of the noise that DDIM adds in each step, 0 to 1."""
    progress: Callable[[int, int], object] | None
    """A function that is called with (done, total) after each batch of latents."""


class Sampling(NamedTuple):
    """Holds the options of sampling that count, resolved and checked."""

    steps: int  # evaluations of the U-Net
    sampler: str  # one of diffusion.SAMPLERS
    eta: float  # share of the noise that DDIM adds in each step
    start: float  # 0: from noise; s in (0, 1]: at time s T, from the noised condition where none is given
    refine: int  # rounds of back-projection
    restore: float  # strength of the damage that the U-Net is told; negative where it is unknown
    statistics: str = "whole"  # one of models.STATISTICS

    @property
    def compiled(self) -> "Sampling":
        """Returns the options with only those that a compiled sampler depends on, so that it is found again."""
        return self._replace(refine=0, restore=0.0, statistics="whole")


def resolve(config: Mapping, given: Mapping) -> Sampling:
    """Returns the options that count: those given, and the model's own for those that are absent or None.

    Args:
      config: the `model` part of a configuration, complete.
      given: options by name; others than the fields of Sampling are left out.

    Raises:
      UserError: if an option is out of range, or `restore` is given to a model that is not told how much to restore.
    """
    own = config["sampling"]
    values: dict[str, Any] = {name: own[name] if given.get(name) is None else given[name] for name in Sampling._fields}
    if given.get("restore") is not None:
        _check_restore(config, given["restore"])
    values |= {name: float(values[name]) for name in ("eta", "start", "restore")}
    values["refine"] = whole(values["refine"], "refine", 0)
    found = Sampling(**values)
    if found.statistics not in models.STATISTICS:
        raise UserError(f"statistics is one of {', '.join(models.STATISTICS)}, got {found.statistics!r}.")
    check(found, config["schedule"]["timesteps"])
    return found


def check(options: Sampling, T: int) -> None:
    """Raises UserError unless a sampler with these options can run over T times."""
    try:
        diffusion.first_time(options.steps, T, options.start or 1.0, options.sampler)
        diffusion.check_options(options.sampler, options.eta)
    except ValueError as e:
        raise UserError(str(e)) from e


def _check_restore(config: Mapping, restore) -> None:
    if not config["unet"]["strength"]:
        raise UserError("This model is not told how much to restore; leave restore out.")
    if isinstance(restore, bool) or not isinstance(restore, Real) or not 0 <= float(restore) <= 1:
        raise UserError(f"restore is a number from 0 (keeps the input's grain) to 1 (cleans), got {restore!r}.")


def check_names(given: Iterable[str], known: type) -> None:
    """Raises TypeError, as Python does for a misspelt argument, for an option that the TypedDict `known` lacks."""
    names = list(known.__annotations__)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise TypeError(f"There is no sampling option {name!r}{hint}; the options are {', '.join(names)}.")
