"""Diffusion as pure functions: schedule, samplers, losses. Knows no network."""

from .losses import eps_loss, min_snr_weight, recon_loss, snr_weight
from .samplers import (
    SAMPLERS,
    ddim_inversion,
    ddim_sigma,
    ddim_step,
    ddim_times,
    ddim_trajectory,
    dpmpp_trajectory,
    first_time,
    sample,
)
from .schedule import make_alpha_bar, predict_z_0, q_sample

__all__ = [
    "SAMPLERS",
    "ddim_inversion",
    "ddim_sigma",
    "ddim_step",
    "ddim_times",
    "ddim_trajectory",
    "dpmpp_trajectory",
    "eps_loss",
    "first_time",
    "make_alpha_bar",
    "min_snr_weight",
    "predict_z_0",
    "q_sample",
    "recon_loss",
    "sample",
    "snr_weight",
]
