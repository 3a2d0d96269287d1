"""Computes the buffers of the noise schedule in the reference implementation's files, and checks the files."""

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from arbiscale_jax import diffusion
from arbiscale_jax.errors import UserError

from .checkpoint_files import is_floating

BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
_VARIANCES = ("posterior_variance", "posterior_log_variance_clipped")  # may differ by a training option; not used here


def schedule_buffers(schedule: Mapping) -> dict[str, np.ndarray]:
    """Computes the buffers of a noise schedule (DDPM Eq. 4, 7).

    Args:
      schedule: timesteps, linear_start and linear_end.

    Returns:
      A dict from name to float32 [T].

    Raises:
      UserError: if there is no such schedule.
    """
    try:
        alpha_bar = diffusion.make_alpha_bar(**schedule)
    except ValueError as e:
        raise UserError(str(e)) from e
    before = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / before
    variance = beta * (1 - before) / (1 - alpha_bar)
    values = (
        beta,
        alpha_bar,
        before,
        np.sqrt(alpha_bar),
        np.sqrt(1 - alpha_bar),
        np.log(1 - alpha_bar),
        np.sqrt(1 / alpha_bar),
        np.sqrt(1 / alpha_bar - 1),
        variance,
        np.log(np.maximum(variance, 1e-20)),
        beta * np.sqrt(before) / (1 - alpha_bar),
        (1 - before) * np.sqrt(1 - beta) / (1 - alpha_bar),
    )
    return {name: value.astype(np.float32) for name, value in zip(BUFFERS, values, strict=True)}


def check_schedule(state: Mapping[str, np.ndarray], schedule: Mapping, path: Path) -> None:
    """Raises UserError if a buffer in the file belongs to another noise schedule; the message names the buffer."""
    for name, wanted in schedule_buffers(schedule).items():
        if name not in state:
            continue
        found, rtol = state[name].astype(np.float64), max(1e-3, 2 * _spacing(state[name].dtype))
        same = found.shape == wanted.shape
        if not same or not (name in _VARIANCES or np.allclose(found, wanted, rtol=rtol, atol=1e-6)):
            about = ""
            if "betas" in state and state["betas"].ndim == 1 and len(state["betas"]):
                betas = state["betas"].astype(np.float64)
                about = f" ({len(betas)} steps, beta from {betas[0]:.4g} to {betas[-1]:.4g})"
            raise UserError(
                f"{path}: {name} in the file{about} is not the schedule of arch (timesteps {schedule['timesteps']}, "
                f"linear_start {schedule['linear_start']}, linear_end {schedule['linear_end']}); correct arch."
            )


def _spacing(dtype: np.dtype) -> float:
    """Returns the relative distance between neighbouring numbers of a type, which is 0 for whole numbers."""
    return float(ml_dtypes.finfo(dtype).eps) if is_floating(dtype) else 0.0
