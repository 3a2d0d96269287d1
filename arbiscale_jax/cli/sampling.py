"""Defines the flags of sampling, which generating, upscaling and measuring share; the defaults are the model's."""

import math
from typing import Any

from absl import flags

from arbiscale_jax.cli import sizes
from arbiscale_jax.errors import UserError

OF_UPSCALING = ("start", "refine", "restore", "statistics")  # flags that generating does not have
OF_GENERATING = ("prompt", "guidance", "guidance-interval", "canvas", "coarse")  # flags that upscaling does not have
NAMES = ("steps", "sampler", "eta", *OF_UPSCALING, "guidance")  # flags that the model's methods take as they are
RECORDED = (*NAMES, "guidance_low", "guidance_high")  # resolved options that sample.json records


def define(flag_values: flags.FlagValues, *, upscaling: bool, generating: bool) -> None:
    """Defines --seed and the flags of sampling, those of OF_UPSCALING and OF_GENERATING only where they are wanted."""
    f = flag_values
    help_ = "The seed of the noise, a whole number >= 0 of any size."
    flags.DEFINE_integer("seed", 0, help_, lower_bound=0, flag_values=f)
    flags.DEFINE_integer("steps", None, "Denoising steps to make; default: the model's.", lower_bound=1, flag_values=f)
    samplers = ["ddim", "dpmpp", "ddim_trailing"]
    flags.DEFINE_enum("sampler", None, samplers, "The sampler; default: the model's.", flag_values=f)
    help_ = "The share of the noise that DDIM adds in each step, 0 to 1; default: the model's."
    flags.DEFINE_float("eta", None, help_, lower_bound=0.0, upper_bound=1.0, flag_values=f)
    if generating:
        help_ = (
            "Generate, with a model that knows labels: what to show, such as 'style=noto cat'; an empty text is no "
            "label; by default each image draws a label of the training pictures."
        )
        flags.DEFINE_string("prompt", None, help_, flag_values=f)
        help_ = "Generate: how much stronger the label counts; 1 is not at all; default: the model's."
        flags.DEFINE_float("guidance", None, help_, lower_bound=0.0, flag_values=f)
        help_ = (
            "Generate: FIRST,LAST, the shares of the times, from 0 (no noise) to 1, between which there is guidance; "
            "default: the model's."
        )
        flags.DEFINE_string("guidance-interval", None, help_, flag_values=f)
        help_ = (
            "Generate: HEIGHTxWIDTH in pixels, at the scale of training, for which latents are sampled; default: the "
            "square of training, which renders of other proportions stretch."
        )
        flags.DEFINE_string("canvas", None, help_, flag_values=f)
        help_ = (
            "Generate, with --canvas: sample at the size of training, enlarge the latent, and go on from this share of "
            "the times, above 0 and up to 1; default: 0, from noise."
        )
        flags.DEFINE_float("coarse", None, help_, lower_bound=0.0, upper_bound=1.0, flag_values=f)
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
    """Raises UserError for NaN, which absl's bounds let through, and for an interval of another form."""
    if opts.get("guidance") is not None and not math.isfinite(opts["guidance"]):
        raise UserError(f"--guidance={opts['guidance']} is no number; give a scale such as 2, where 1 is none.")
    if opts.get("coarse") is not None and not opts.get("canvas"):
        raise UserError("--coarse belongs to --canvas; give both.")
    _interval(opts)
    for name in ("eta", "start", "restore", "coarse"):
        if opts.get(name) is not None and not math.isfinite(opts[name]):
            raise UserError(f"--{name}={opts[name]} is no number between 0 and 1.")


def given(opts: dict) -> dict[str, Any]:
    """Returns the options that the command line gives, in the form that the model's methods take."""
    found: dict[str, Any] = {name: opts[name] for name in (*NAMES, "prompt", "coarse") if opts.get(name) is not None}
    interval = _interval(opts)
    if opts.get("canvas"):
        found["canvas"] = sizes.parse_size(opts["canvas"], "--canvas")
    return found if interval is None else found | {"guidance_interval": interval}


def _interval(opts: dict) -> tuple[float, float] | None:
    """Reads --guidance-interval, or returns None where it is not given."""
    text = opts.get("guidance-interval")
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise UserError(
            f"--guidance-interval={text} is no interval; write FIRST,LAST within 0 and 1, such as "
            "--guidance-interval=0.2,0.8."
        )
    return low, high
