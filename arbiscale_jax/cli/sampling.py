"""Defines the flags of sampling, which generating, upscaling and measuring share; the defaults are the model's."""

import math

from absl import flags

from arbiscale_jax.errors import UserError

OF_UPSCALING = ("start", "refine", "restore", "statistics")  # flags that generating does not have
NAMES = ("steps", "sampler", "eta", *OF_UPSCALING)


def define(flag_values: flags.FlagValues, *, upscaling: bool) -> None:
    """Defines --seed and the flags of NAMES, those of OF_UPSCALING only if `upscaling`."""
    f = flag_values
    help_ = "The seed of the noise, a whole number >= 0 of any size."
    flags.DEFINE_integer("seed", 0, help_, lower_bound=0, flag_values=f)
    flags.DEFINE_integer("steps", None, "Denoising steps to make; default: the model's.", lower_bound=1, flag_values=f)
    samplers = ["ddim", "dpmpp", "ddim_trailing"]
    flags.DEFINE_enum("sampler", None, samplers, "The sampler; default: the model's.", flag_values=f)
    help_ = "The share of the noise that DDIM adds in each step, 0 to 1; default: the model's."
    flags.DEFINE_float("eta", None, help_, lower_bound=0.0, upper_bound=1.0, flag_values=f)
    if upscaling:
        help_ = (
            "Upscale: where sampling starts: 0 means from noise, s in (0, 1] from the input with noise added up to "
            "time s T; default: the model's."
        )
        flags.DEFINE_float("start", None, help_, lower_bound=0.0, upper_bound=1.0, flag_values=f)
        help_ = (
            "Upscale: number of rounds that correct the latent by what the render lacks of the input; default: the "
            "model's."
        )
        flags.DEFINE_integer("refine", None, help_, lower_bound=0, flag_values=f)
        help_ = (
            "Upscale: how much of the input's noise and compression is cleaned away, from 0 (its grain is kept) to 1; "
            "default: the model's, which may judge by itself."
        )
        flags.DEFINE_float("restore", None, help_, lower_bound=0.0, upper_bound=1.0, flag_values=f)
        help_ = (
            "Upscale: whose statistics norms use where a large picture is cut into windows: those of the whole, or "
            "those of each window, in half the time; default: the model's."
        )
        flags.DEFINE_enum("statistics", None, ["whole", "window"], help_, flag_values=f)


def check(opts: dict) -> None:
    """Raises UserError for NaN, which absl's bounds let through."""
    for name in ("eta", "start", "restore"):
        if opts.get(name) is not None and not math.isfinite(opts[name]):
            raise UserError(f"--{name}={opts[name]} is no number between 0 and 1.")


def given(opts: dict) -> dict:
    """Returns the options of NAMES that the command line gives, in the form that the model's methods take."""
    return {name: opts[name] for name in NAMES if opts.get(name) is not None}
