"""Defines diffusion as pure functions: the noise schedule, samplers and losses. Nothing here depends on a network."""

from .losses import eps_loss, mean_square, min_snr_weight, recon_loss, snr_weight
from .noise import cell_noise
from .parts import Advance, run_in_parts
from .samplers import (
    SAMPLERS,
    Noise,
    begin,
    check_options,
    ddim_inversion,
    ddim_sigma,
    ddim_step,
    ddim_times,
    ddim_trajectory,
    dpmpp_trajectory,
    first_time,
    make_constants,
    make_step,
    sample,
    sample_eagerly,
    trailing_times,
    trajectory,
)
from .schedule import eps_from_z_0, make_alpha_bar, predict_z_0, q_sample

__all__ = [
    "SAMPLERS",
    "Advance",
    "Noise",
    "begin",
    "cell_noise",
    "check_options",
    "ddim_inversion",
    "ddim_sigma",
    "ddim_step",
    "ddim_times",
    "ddim_trajectory",
    "dpmpp_trajectory",
    "eps_from_z_0",
    "eps_loss",
    "first_time",
    "make_alpha_bar",
    "make_constants",
    "make_step",
    "mean_square",
    "min_snr_weight",
    "predict_z_0",
    "q_sample",
    "recon_loss",
    "run_in_parts",
    "sample",
    "sample_eagerly",
    "snr_weight",
    "trailing_times",
    "trajectory",
]
