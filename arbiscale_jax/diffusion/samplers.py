"""Runs reverse processes: DDIM (Song et al. 2021) and DPM-Solver++(2M) (Lu et al. 2022), each as one scan under jit.

A sampler visits S + 1 noise levels, from the noisiest one on, and evaluates eps_theta at the first S of them. It ends
at alpha_bar_0 of the schedule, the least noise that training has seen; ddim_trailing ends at z_0-hat itself.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SAMPLERS = ("ddim", "dpmpp", "ddim_trailing")


class Trajectory(NamedTuple):
    """Lists the noise levels that a sampler visits, as arrays on the host; the noisiest one is first."""

    t: np.ndarray  # times at which the network is evaluated, [S]; dpmpp has fractional ones
    alpha_bar: np.ndarray  # alpha_bar at those times and at the end, float64 [S + 1]


def _check_steps(steps: int, T: int) -> None:
    """Raises ValueError unless the number of steps is a whole number from 1 to T."""
    if not (isinstance(steps, (int, np.integer)) and 1 <= steps <= T):
        raise ValueError(f"The number of sampling steps is a whole number from 1 to {T}, got {steps}.")


def ddim_times(steps: int, T: int) -> np.ndarray:
    """Returns S = steps increasing times: 1 + floor(k T / S) for k = 0 .. S - 1 if S < T, and 0 .. T - 1 if S = T."""
    _check_steps(steps, T)
    k = np.arange(steps, dtype=np.int64)
    return k if steps == T else 1 + k * T // steps


def trailing_times(steps: int, T: int) -> np.ndarray:
    """Returns S = steps increasing times round((k + 1) T / S) - 1, k = 0 .. S - 1 (Lin et al. 2024), up to T - 1."""
    _check_steps(steps, T)
    return np.rint(np.arange(1, steps + 1) * T / steps).astype(np.int64) - 1


def first_time(steps: int, T: int, start: float = 1.0, sampler: str = "ddim") -> int:
    """Returns the time at which a sampler begins, the noisiest of the share `start` in (0, 1] of the T times."""
    times = trailing_times if sampler == "ddim_trailing" else ddim_times
    return int(times(steps, _visited(T, start))[-1])


def _visited(T: int, start: float) -> int:
    """Returns how many of the T times belong to the share `start`, or raises ValueError if it is outside (0, 1]."""
    if not 0 < start <= 1:
        raise ValueError(f"start, the share of the times that sampling visits, lies in (0, 1], got {start}.")
    return max(1, round(start * T))


def check_options(sampler: str, eta: float) -> None:
    """Raises ValueError if the sampler is unknown, eta is outside [0, 1], or dpmpp should add noise."""
    if sampler not in SAMPLERS:
        raise ValueError(f"The sampler is one of {', '.join(SAMPLERS)}, got {sampler!r}.")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta lies in [0, 1], got {eta}.")
    if sampler == "dpmpp" and eta:
        raise ValueError(f"dpmpp is deterministic: eta must be 0, got {eta}; use ddim for eta > 0.")


def ddim_trajectory(steps: int, alpha_bar: np.ndarray, start: float = 1.0) -> Trajectory:
    """Returns the levels of DDIM, arguments as in `trajectory`; the last step goes to alpha_bar[0], so none is lost."""
    t = ddim_times(steps, _visited(len(alpha_bar), start))[::-1]
    return Trajectory(t, np.append(alpha_bar[t], alpha_bar[0]))


def trailing_trajectory(steps: int, alpha_bar: np.ndarray, start: float = 1.0) -> Trajectory:
    """Returns the levels of DDIM at `trailing_times`, arguments as in `trajectory`; the last step goes to z_0-hat."""
    t = trailing_times(steps, _visited(len(alpha_bar), start))[::-1]
    return Trajectory(t, np.append(alpha_bar[t], 1.0))


def trajectory(sampler: str, steps: int, alpha_bar: np.ndarray, start: float = 1.0) -> Trajectory:
    """Returns the noise levels that a sampler visits.

    Args:
      sampler: one of SAMPLERS.
      steps: network evaluations.
      alpha_bar: [T] on the host.
      start: share of the T times, from 0 on, that is visited; in (0, 1].

    Raises:
      ValueError: if the sampler is unknown, or steps or start are out of range.
    """
    check_options(sampler, 0.0)
    make = {"ddim": ddim_trajectory, "dpmpp": dpmpp_trajectory, "ddim_trailing": trailing_trajectory}[sampler]
    return make(steps, alpha_bar, start)


def dpmpp_trajectory(steps: int, alpha_bar: np.ndarray, start: float = 1.0) -> Trajectory:
    """Returns the levels of DPM-Solver++, arguments as in `trajectory`.

    They are uniform in log-SNR from the first level of DDIM to alpha_bar[0]; t is interpolated linearly in log-SNR.
    """
    first = first_time(steps, len(alpha_bar), start)
    log_snr = np.log(alpha_bar / (1 - alpha_bar))  # decreasing in t
    levels = np.linspace(log_snr[first], log_snr[0], steps + 1)
    t = np.interp(levels, log_snr[::-1], np.arange(len(alpha_bar))[::-1].astype(np.float64))
    return Trajectory(t[:-1], 1 / (1 + np.exp(-levels)))


def ddim_step(z_t, eps_hat, a_t, a_s, sigma=0.0, noise: jax.Array | float = 0.0):
    """Returns z_s = sqrt(a_s) z_0-hat + sqrt(1 - a_s - sigma^2) eps_hat + sigma noise (DDIM Eq. 12).

    Args:
      z_t: noisy latent, [b h w c].
      eps_hat: its predicted noise, [b h w c].
      a_t: alpha_bar at time t.
      a_s: alpha_bar at time s, to which the step goes.
      sigma: standard deviation of the added noise, see `ddim_sigma`.
      noise: standard normal, [b h w c].

    Returns:
      z_s, [b h w c].
    """
    z_0 = (z_t - jnp.sqrt(1 - a_t) * eps_hat) / jnp.sqrt(a_t)
    return jnp.sqrt(a_s) * z_0 + jnp.sqrt(jnp.maximum(1 - a_s - sigma**2, 0)) * eps_hat + sigma * noise


def ddim_sigma(a_t, a_s, eta: float):
    """Returns eta sqrt((1 - a_s) / (1 - a_t) (1 - a_t / a_s)) (DDIM Eq. 16); eta = 1 is DDPM, variance beta-tilde."""
    return eta * np.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))


class Noise(NamedTuple):
    """Describes the noise that DDIM adds in each step (DDIM Eq. 16)."""

    eta: float  # amount in [0, 1]: 0 is deterministic, 1 is ancestral sampling
    draw: Callable  # function step -> standard normal [b h w c]; step counts from 0 and is traced


def sample(
    eps_fn, z_T, alpha_bar, *, steps: int, sampler: str = "ddim", start: float = 1.0, noise: Noise | None = None
):
    """Runs the whole reverse process.

    Args:
      eps_fn: function (z_t [b h w c], t [b]) -> eps_hat [b h w c].
      z_T: the first latent [b h w c]: standard normal, or drawn from q(z_t | z_0) of a first guess at `first_time`.
      alpha_bar: [T] on the host.
      steps: network evaluations.
      sampler: one of SAMPLERS.
      start: share of the T times, from 0 on, that is visited; in (0, 1].
      noise: noise that DDIM adds; None is a deterministic sampler.

    Returns:
      z_0 at the noise level where the sampler ends, [b h w c].

    Raises:
      ValueError: if the sampler is unknown, steps are not within 1 .. start T, eta or start are out of range, or there
        is noise with dpmpp.
    """
    step, constants = _process(eps_fn, alpha_bar, (steps, sampler, start, noise))
    return jax.lax.scan(step, begin(z_T, sampler), constants)[0][0]


def sample_eagerly(
    eps_fn, z_T, alpha_bar, *, steps: int, sampler: str = "ddim", start: float = 1.0, noise: Noise | None = None
):
    """Does what `sample` does, in a loop of Python, for an eps_fn that cannot be traced; see `sample`."""
    step, constants = _process(eps_fn, alpha_bar, (steps, sampler, start, noise))
    carry = begin(z_T, sampler)
    for now in zip(*constants, strict=True):
        carry, _ = step(carry, now)
    return carry[0]


def _process(eps_fn, alpha_bar, options) -> tuple[Callable, tuple[np.ndarray, ...]]:
    steps, sampler, start, noise = options
    constants = make_constants(alpha_bar, steps=steps, sampler=sampler, start=start, eta=noise.eta if noise else 0.0)
    return make_step(eps_fn, sampler, noise.draw if noise and noise.eta else None), constants


def make_constants(
    alpha_bar, *, steps: int, sampler: str = "ddim", start: float = 1.0, eta: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Returns what the steps of a sampler are told, besides z_t: arrays [S] on the host, for `make_step`.

    Args:
      alpha_bar: as in `sample`.
      steps: likewise.
      sampler: likewise.
      start: likewise.
      eta: amount of the noise that DDIM adds.

    Raises:
      ValueError: as in `sample`.
    """
    check_options(sampler, eta)
    levels = trajectory(sampler, steps, alpha_bar, start)
    return _dpmpp_constants(levels) if sampler == "dpmpp" else _ddim_constants(levels, eta)


def begin(z_T, sampler: str = "ddim") -> tuple:
    """Returns the first carry of a sampler that begins at z_T [b h w c]; z_t is always its first member."""
    return (z_T, jnp.zeros_like(z_T)) if sampler == "dpmpp" else (z_T,)


def make_step(eps_fn, sampler: str = "ddim", draw: Callable | None = None) -> Callable:
    """Returns one step of a sampler, as jax.lax.scan takes it: (carry, constants of the step) -> (carry, None).

    Args:
      eps_fn: as in `sample`.
      sampler: likewise.
      draw: draws the noise that DDIM adds, see Noise; None adds none.
    """
    return _dpmpp_step(eps_fn) if sampler == "dpmpp" else _ddim_step(eps_fn, draw)


def ddim_inversion(eps_fn, z_0, alpha_bar, *, steps: int):
    """Runs DDIM (eta = 0) backwards to the noise that it would turn into z_0, up to the error of its steps.

    It visits the levels of `ddim_trajectory` in the opposite order and evaluates eps_theta at the level from which a
    step goes (Kim et al. 2022, DiffusionCLIP). With alpha_bar[:t0] the path ends below time t0, and `sample` with the
    same alpha_bar[:t0] returns from there.

    Args:
      eps_fn: as in `sample`.
      z_0: latent at noise level alpha_bar[0], [b h w c].
      alpha_bar: [T] on the host.
      steps: network evaluations.

    Returns:
      z_t at the noisiest level of the path, [b h w c].

    Raises:
      ValueError: if steps are not within 1 .. T.
    """
    path = ddim_trajectory(steps, alpha_bar)
    times = np.append(path.t[1:], 0)[::-1]
    constants = _ddim_constants(Trajectory(times, path.alpha_bar[::-1]), 0.0)
    return jax.lax.scan(make_step(eps_fn), begin(z_0), constants)[0][0]


def _ddim_constants(trajectory: Trajectory, eta: float) -> tuple[np.ndarray, ...]:
    """Returns (t, alpha_bar_t, alpha_bar_s, sigma, number of the step)."""
    a_t, a_s = trajectory.alpha_bar[:-1], trajectory.alpha_bar[1:]
    sigma = ddim_sigma(a_t, a_s, eta) if eta else np.zeros_like(a_t)
    return _narrow(trajectory.t, a_t, a_s, sigma, np.arange(len(a_t)))


def _ddim_step(eps_fn, draw: Callable | None) -> Callable:
    def step(carry, now):
        t, a_t, a_s, sigma, i = now
        (z_t,) = carry
        eps_hat = eps_fn(z_t, jnp.full(z_t.shape[:1], t))
        return (ddim_step(z_t, eps_hat, a_t, a_s, sigma, draw(i) if draw else 0.0),), None

    return step


def _dpmpp_constants(trajectory: Trajectory) -> tuple[np.ndarray, ...]:
    """Returns what steps of DPM-Solver++(2M), a second-order multistep method for predictions of z_0, are told.

    The steps h in half the log-SNR are equal, so the ratio r of two steps is 1.
    """
    a, s = np.sqrt(trajectory.alpha_bar), np.sqrt(1 - trajectory.alpha_bar)
    h = np.diff(np.log(a / s))
    extrapolate = np.where(np.arange(len(h)) > 0, 0.5, 0.0)  # 1 / (2 r); the first step is of first order
    return _narrow(trajectory.t, a[:-1], s[:-1], s[1:] / s[:-1], -a[1:] * np.expm1(-h), extrapolate)


def _dpmpp_step(eps_fn) -> Callable:
    def step(carry, now):
        z_t, z_0_before = carry
        t, a_t, s_t, keep, gain, extra = now
        z_0 = (z_t - s_t * eps_fn(z_t, jnp.full(z_t.shape[:1], t))) / a_t
        return (keep * z_t + gain * (z_0 + extra * (z_0 - z_0_before)), z_0), None

    return step


def _narrow(*constants: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns arrays in the types of 32 bits in which the device computes."""
    return tuple(x.astype(np.float32 if x.dtype == np.float64 else np.int32) for x in constants)
