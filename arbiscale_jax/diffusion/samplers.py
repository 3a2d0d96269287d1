"""Reverse processes: DDIM (Song et al. 2021) and DPM-Solver++(2M) (Lu et al. 2022), each one scan under jit.

A sampler visits noise levels alpha_bar[0] (noisiest) .. alpha_bar[S], evaluates eps_theta at the first S of them and
ends at the schedule's alpha_bar_0, the least noise that training has seen; ddim_trailing ends at z_0-hat itself.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SAMPLERS = ("ddim", "dpmpp", "ddim_trailing")


class Trajectory(NamedTuple):
    """Noise levels that a sampler visits, on the host."""

    t: np.ndarray  # [S], times given to the network; fractional for dpmpp
    alpha_bar: np.ndarray  # [S + 1] float64, at those times and at the end


def _check_steps(steps: int, T: int) -> None:
    if not (isinstance(steps, (int, np.integer)) and 1 <= steps <= T):
        raise ValueError(f"The number of sampling steps is a whole number from 1 to {T}, got {steps}.")


def ddim_times(steps: int, T: int) -> np.ndarray:
    """Returns the increasing times 1 + floor(k T / S), k = 0 .. S-1, for S < T, and 0 .. T-1 for S = T."""
    _check_steps(steps, T)
    k = np.arange(steps, dtype=np.int64)
    return k if steps == T else 1 + k * T // steps


def trailing_times(steps: int, T: int) -> np.ndarray:
    """Returns the increasing times round((k + 1) T / S) - 1, k = 0 .. S-1 (Lin et al. 2024): the last is T - 1."""
    _check_steps(steps, T)
    return np.rint(np.arange(1, steps + 1) * T / steps).astype(np.int64) - 1


def first_time(steps: int, T: int, start: float = 1.0, sampler: str = "ddim") -> int:
    """Returns where a sampler begins: its noisiest time over the share `start` in (0, 1] of the T times."""
    times = trailing_times if sampler == "ddim_trailing" else ddim_times
    return int(times(steps, _visited(T, start))[-1])


def _visited(T: int, start: float) -> int:
    if not 0 < start <= 1:
        raise ValueError(f"start, the share of the times that sampling visits, lies in (0, 1], got {start}.")
    return max(1, round(start * T))


def ddim_trajectory(steps: int, alpha_bar: np.ndarray, start: float = 1.0) -> Trajectory:
    """DDIM's levels, noisiest first, the last step going to alpha_bar[0] (none is dropped)."""
    t = ddim_times(steps, _visited(len(alpha_bar), start))[::-1]
    return Trajectory(t, np.append(alpha_bar[t], alpha_bar[0]))


def trailing_trajectory(steps: int, alpha_bar: np.ndarray, start: float = 1.0) -> Trajectory:
    """DDIM's levels at `trailing_times`, noisiest first; the last step goes to z_0-hat (alpha_bar = 1)."""
    t = trailing_times(steps, _visited(len(alpha_bar), start))[::-1]
    return Trajectory(t, np.append(alpha_bar[t], 1.0))


def trajectory(sampler: str, steps: int, alpha_bar: np.ndarray, start: float = 1.0) -> Trajectory:
    """Returns the levels that one of SAMPLERS visits. Raises: ValueError for another."""
    if sampler not in SAMPLERS:
        raise ValueError(f"The sampler is one of {', '.join(SAMPLERS)}, got {sampler!r}.")
    make = {"ddim": ddim_trajectory, "dpmpp": dpmpp_trajectory, "ddim_trailing": trailing_trajectory}[sampler]
    return make(steps, alpha_bar, start)


def dpmpp_trajectory(steps: int, alpha_bar: np.ndarray, start: float = 1.0) -> Trajectory:
    """Levels uniform in log-SNR from DDIM's first to alpha_bar[0]; t by linear interpolation in log-SNR."""
    first = first_time(steps, len(alpha_bar), start)
    log_snr = np.log(alpha_bar / (1 - alpha_bar))  # decreasing in t
    levels = np.linspace(log_snr[first], log_snr[0], steps + 1)
    t = np.interp(levels, log_snr[::-1], np.arange(len(alpha_bar))[::-1].astype(np.float64))
    return Trajectory(t[:-1], 1 / (1 + np.exp(-levels)))


def ddim_step(z_t, eps_hat, a_t, a_s, sigma=0.0, noise=0.0):
    """Goes from z_t to z_s: sqrt(a_s) z_0-hat + sqrt(1 - a_s - sigma^2) eps_hat + sigma noise (DDIM Eq. 12).

    Args: z_t, eps_hat, noise, [b h w c]; a_t and a_s, alpha_bar at both times; sigma, see `ddim_sigma`.
    """
    z_0 = (z_t - jnp.sqrt(1 - a_t) * eps_hat) / jnp.sqrt(a_t)
    return jnp.sqrt(a_s) * z_0 + jnp.sqrt(jnp.maximum(1 - a_s - sigma**2, 0)) * eps_hat + sigma * noise


def ddim_sigma(a_t, a_s, eta: float):
    """Returns eta sqrt((1 - a_s) / (1 - a_t) (1 - a_t / a_s)); eta = 1 is DDPM with variance beta-tilde."""
    return eta * np.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))


def sample(
    eps_fn, z_T, alpha_bar, *, steps: int, sampler: str = "ddim", eta: float = 0.0, start: float = 1.0, keys=None
):
    """Runs the whole reverse process.

    Args: eps_fn, (z_t [b h w c], t [b]) -> eps_hat [b h w c]; z_T, [b h w c], standard normal or, at time
      `first_time`, drawn from q(z_t | z_0) of some first guess; alpha_bar, [T] on the host; steps, network evaluations;
      sampler, one of SAMPLERS; eta in [0, 1], DDIM's noise; start in (0, 1], the share of the T times, from 0 on, that
      is visited; keys, one random key an example, [b], read where eta > 0, so an example does not depend on the rest
      of its batch.
    Returns: z_0 (at noise level alpha_bar[0]), [b h w c].
    Raises: ValueError for an unknown sampler, steps outside 1 .. start T, eta or start out of range, or eta > 0 with
      dpmpp.
    """
    levels = trajectory(sampler, steps, alpha_bar, start)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta lies in [0, 1], got {eta}.")
    if sampler == "dpmpp":
        if eta:
            raise ValueError(f"dpmpp is deterministic: eta must be 0, got {eta}; use ddim for eta > 0.")
        return _sample_dpmpp(eps_fn, z_T, levels)
    if eta and keys is None:
        raise ValueError(f"eta = {eta} draws noise: pass keys, one an example.")
    return _sample_ddim(eps_fn, z_T, levels, eta, keys)


def ddim_inversion(eps_fn, z_0, alpha_bar, *, steps: int):
    """Runs DDIM (eta = 0) backwards, to the noise that it turns into z_0, up to the size of its steps.

    The levels of `ddim_trajectory` in the opposite order, eps_theta asked at the level that a step leaves (Kim et al.
    2022, DiffusionCLIP). alpha_bar[:t0] ends the path below time t0; `sample` with it comes back.
    Args: eps_fn as in `sample`; z_0, [b h w c], taken to be at noise level alpha_bar[0]; alpha_bar, [T] on the host.
    Returns: z_t at the path's noisiest level, [b h w c].
    Raises: ValueError for steps outside 1 .. T.
    """
    path = ddim_trajectory(steps, alpha_bar)
    times = np.append(path.t[1:], 0)[::-1]
    return _sample_ddim(eps_fn, z_0, Trajectory(times, path.alpha_bar[::-1]), 0.0, None)


def _sample_ddim(eps_fn, z_T, trajectory, eta, keys):
    a_t, a_s = trajectory.alpha_bar[:-1], trajectory.alpha_bar[1:]
    sigma = ddim_sigma(a_t, a_s, eta) if eta else np.zeros_like(a_t)
    constants = (trajectory.t, a_t, a_s, sigma, np.arange(len(a_t)))
    normal = jax.vmap(partial(jax.random.normal, shape=z_T.shape[1:]))

    def step(z_t, now):
        t, a_t, a_s, sigma, i = now
        eps_hat = eps_fn(z_t, jnp.full(z_t.shape[:1], t))
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, i)) if eta else 0.0
        return ddim_step(z_t, eps_hat, a_t, a_s, sigma, noise), None

    return jax.lax.scan(step, z_T, _on_device(constants))[0]


def _sample_dpmpp(eps_fn, z_T, trajectory):
    """Second-order multistep in the data prediction; the half-log-SNR steps h are equal, so r = 1."""
    a, s = np.sqrt(trajectory.alpha_bar), np.sqrt(1 - trajectory.alpha_bar)
    h = np.diff(np.log(a / s))
    extrapolate = np.where(np.arange(len(h)) > 0, 0.5, 0.0)  # 1 / (2 r); the first step is of first order
    constants = (trajectory.t, a[:-1], s[:-1], s[1:] / s[:-1], -a[1:] * np.expm1(-h), extrapolate)

    def step(carry, now):
        z_t, z_0_before = carry
        t, a_t, s_t, keep, gain, extra = now
        z_0 = (z_t - s_t * eps_fn(z_t, jnp.full(z_t.shape[:1], t))) / a_t
        return (keep * z_t + gain * (z_0 + extra * (z_0 - z_0_before)), z_0), None

    return jax.lax.scan(step, (z_T, jnp.zeros_like(z_T)), _on_device(constants))[0][0]


def _on_device(constants):
    return tuple(jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else jnp.int32) for x in constants)
