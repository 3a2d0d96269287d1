"""Defines the options of sampling: what callers may give, and the record of what counts."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple, TypedDict

import numpy as np

from arbiscale_jax import diffusion, models
from arbiscale_jax.artifacts.vocabulary import vocabulary_of
from arbiscale_jax.errors import UserError

from .checks import whole

GUIDANCE = ("guidance", "guidance_low", "guidance_high")  # fields of Sampling that serve labels


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


class ProcessOptions(TypedDict, total=False):
    """Lists what generating and `Model.sample` share; None or an absent option means the model's own setting."""

    steps: int | None
    """The number of evaluations of the U-Net."""
    sampler: str | None
    """One of diffusion.SAMPLERS."""
    eta: float | None
    """The share of the noise that DDIM adds in each step, 0 to 1."""
    guidance: float | None
    """The scale w of classifier-free guidance, for a model that knows labels: 1 is none, 0 leaves the label out."""
    guidance_interval: Sequence[float] | None
    """The (first, last) share of the times, in [0, 1], between which there is guidance."""


class SampleOptions(ProcessOptions, total=False):
    """Lists the options of `Model.sample`."""

    start: float
    """The share of the schedule's times, in (0, 1], that the process covers; by default all."""
    seed: int
    """The seed of DDIM's noise, used if eta > 0, by default 0; example i depends on (seed, i)."""
    prompt: str | Sequence[str] | None
    """The prompt of all examples, or one for each, for a model that knows labels; None is no label."""


class GenerateOptions(ProcessOptions, total=False):
    """Lists the options of `Model.generate`; None or an absent option means the model's own setting."""

    seed: int
    """The seed of the noise, a whole number >= 0 of any size, by default 0; image i depends on (seed, i) alone."""
    prompt: str | Sequence[str] | None
    """What to show, for a model that knows labels: a text such as "style=noto cat", or one for each image, which take
    turns. "" is no label; None draws a label of the training pictures for each image, from (seed, i)."""
    canvas: Sequence[int] | None
    """The (height, width) in pixels, at the scale of training, for which latents are sampled; by default the square of
    training. Rendering may still enlarge or stretch it."""
    coarse: float | None
    """For a canvas: 0, the default, samples it from noise. s in (0, 1] samples a latent of the size of training first,
    enlarges it, adds noise up to time s T, and goes on from there."""
    progress: Callable[[int, int], object] | None
    """A function that is called with (done, total) after each part of the work."""


class Sampling(NamedTuple):
    """Holds the options of sampling that count, resolved and checked."""

    steps: int  # evaluations of the U-Net
    sampler: str  # one of diffusion.SAMPLERS
    eta: float  # share of the noise that DDIM adds in each step
    start: float  # 0: from noise; s in (0, 1]: at time s T, from the noised condition where none is given
    refine: int  # rounds of back-projection
    restore: float  # strength of the damage that the U-Net is told; negative where it is unknown
    statistics: str = "whole"  # one of models.STATISTICS
    guidance: float = 1.0  # scale of classifier-free guidance; 1 is none
    guidance_low: float = 0.0  # share of the times from which on there is guidance
    guidance_high: float = 1.0  # share of the times up to which there is guidance

    @property
    def compiled(self) -> "Sampling":
        """Returns the options with only those that a compiled sampler depends on, so that it is found again."""
        found = self._replace(refine=0, restore=0.0, statistics="whole")
        return found._replace(guidance=1.0, guidance_low=0.0, guidance_high=1.0)

    def constants(self, alpha_bar) -> tuple[np.ndarray, ...]:
        """Returns what the steps are told (diffusion.make_constants) for a schedule alpha_bar [T] on the host."""
        return diffusion.make_constants(
            alpha_bar, steps=self.steps, sampler=self.sampler, start=self.start or 1.0, eta=self.eta
        )

    def first_time(self, T: int) -> int | None:
        """Returns the time at which sampling begins at the noised condition, or None if it begins with noise."""
        return diffusion.first_time(self.steps, T, self.start, self.sampler) if self.start else None


def resolve(config: Mapping, given: Mapping) -> Sampling:
    """Returns the options that count: those given, and the model's own for those that are absent or None.

    Args:
      config: the `model` part of a configuration, complete.
      given: options by name; others than the fields of Sampling are left out.

    Raises:
      UserError: if an option is out of range, or `restore` or guidance is given to a model that is not told how much to
        restore, or knows no labels.
    """
    own, given = config["sampling"], _with_interval(given)
    values: dict[str, Any] = {name: own[name] if given.get(name) is None else given[name] for name in Sampling._fields}
    if given.get("restore") is not None:
        _check_restore(config, given["restore"])
    _check_guidance(config, given, values)
    values |= {name: float(values[name]) for name in ("eta", "start", "restore", *GUIDANCE)}
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


def _with_interval(given: Mapping) -> dict:
    """Returns options with guidance_interval taken apart, or raises UserError if it is no pair."""
    given = dict(given)
    interval = given.pop("guidance_interval", None)
    if interval is None:
        return given
    try:
        low, high = interval
    except (TypeError, ValueError) as e:
        raise UserError(f"guidance_interval is a pair (first, last) of shares in [0, 1], got {interval!r}.") from e
    return given | {"guidance_low": low, "guidance_high": high}


def _check_guidance(config: Mapping, given: Mapping, values: Mapping) -> None:
    """Raises UserError if guidance is given to a model without labels, or is out of range."""
    if any(given.get(name) is not None for name in GUIDANCE) and vocabulary_of(config) is None:
        raise UserError("This model knows no labels; leave prompt and guidance out.")
    scale, low, high = (values[name] for name in GUIDANCE)
    if not _is_number(scale) or scale < 0:
        raise UserError(f"guidance is a scale >= 0, where 1 is none, got {scale!r}.")
    if not (_is_number(low) and _is_number(high) and 0 <= low <= high <= 1):
        raise UserError(f"guidance_interval is a pair 0 <= first <= last <= 1, got {(low, high)!r}.")


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))


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
