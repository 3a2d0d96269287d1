"""Defines the options of upscaling, which editors complete and with which misspelt ones are compared."""

import difflib
from collections.abc import Callable, Iterable
from typing import TypedDict


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


class AnswerOptions(SamplingOptions, total=False):
    """Says how the answers for one picture are made."""

    seed: int
    """The seed of the noise, by default 0; answer i depends on (seed, i) alone."""
    refine: int | None
    """The number of rounds of back-projection, by default the model's own."""


class UpscaleOptions(AnswerOptions, total=False):
    """Lists all options of `Model.upscale`."""

    progress: Callable[[int, int], object] | None
    """A function that is called with (done, total) after each latent or window."""


def check_options(given: Iterable[str], known: type) -> None:
    """Raises TypeError, as Python does for a misspelt argument, for an option that the TypedDict `known` lacks."""
    names = list(known.__annotations__)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise TypeError(f"There is no sampling option {name!r}{hint}; the options are {', '.join(names)}.")
