"""Builds the paths of alignment, sequences of z_t from much noise to little, with an update at each of their points.

`reverse_ddim` (the paper's text, after DiffusionCLIP, Kim et al. 2022, 4) inverts z_0 by DDIM and comes back along the
same noise levels. `sampling` follows the path that sampling itself takes, from the noised condition or from noise; it
serves super-resolution alone, where the true end of the path is known.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arbiscale_jax import diffusion
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import fold_name

from . import latent
from . import stage as s

MODES = ("reverse_ddim", "sampling")


class Point(NamedTuple):
    """Holds one z_t with what the U-Net predicts there."""

    t: jax.Array  # [b], the time
    z_0: jax.Array  # [b h w c], the true latent, scaled
    eps: jax.Array  # [b h w c], the noise that leads from z_0 to z_t
    out: latent.Estimate  # the prediction


def make_path(config, nets: latent.Nets, terms: Callable) -> s.UpdatePath:
    """Builds the path of loss.align_mode.

    Args:
      config: the whole configuration.
      nets: the networks.
      terms: (params, frozen, batch, key, point, disc=None) -> {"loss": [b], parts: [b]}.

    Returns:
      The path.

    Raises:
      UserError: if loss.align_steps or loss.align_t0 is out of range, or the mode sampling has no condition.
    """
    make = {"reverse_ddim": _reverse_path, "sampling": _sampling_path}[config.loss.align_mode]
    begin, levels = make(config, nets)
    return s.UpdatePath(config.loss.align_steps, begin, _make_loss(nets, levels, terms))


def _reverse_path(config, nets: latent.Nets) -> tuple:
    """Returns the start and the noise levels of `reverse_ddim`, align_steps levels below align_t0.

    The inversion uses the weights before the step, and the move to the next level uses the prediction before the
    update. L_dm is the error of z_0 under the weight of Eq. 8, which is the error of the noise that leads from z_0 to
    z_t.
    """
    T, steps, t0 = len(nets.alpha_bar), config.loss.align_steps, config.loss.align_t0 or len(nets.alpha_bar)
    if not 2 <= t0 <= T:
        raise UserError(f"loss.align_t0 lies in [2, {T}], or is 0 for the whole schedule, got {t0}.")
    if not 1 <= steps <= t0:
        raise UserError(f"loss.align_steps lies in [1, {t0}], the times below loss.align_t0, got {steps}.")

    def begin(params, frozen, batch, key):
        z_0, c = latent.encode(nets, frozen, batch, fold_name(key, "z_0")), latent.condition(nets, frozen, batch)
        label = {"label": latent.told(nets, batch, key, train=True)["label"]} if nets.labelled else {}

        def eps_fn(z_t, t):
            return latent.estimate(nets, params["unet"], z_t, t, c, told=label).eps_hat

        z_t = diffusion.ddim_inversion(eps_fn, z_0, nets.alpha_bar[:t0], steps=steps)
        return {"z_0": z_0, "z_t": z_t, "c": c, **label}

    return begin, diffusion.ddim_trajectory(steps, nets.alpha_bar[:t0])


def _sampling_path(config, nets: latent.Nets) -> tuple:
    """Returns the start and the noise levels of `sampling`, the align_steps levels from model.sampling.start on.

    z_t is what the U-Net has made of the condition so far, not a sample of q(z_t | z_0), so that training meets the
    states that sampling meets.
    """
    T, steps, start = len(nets.alpha_bar), config.loss.align_steps, nets.start or 1.0
    if nets.interpolation is None:
        raise UserError("loss.align_mode=sampling needs super-resolution (model.condition.enabled); use another mode.")
    if not 1 <= steps <= max(1, round(start * T)):
        last = round(start * T)
        raise UserError(f"loss.align_steps lies in [1, {last}], the times that sampling visits, got {steps}.")

    def begin(params, frozen, batch, key):
        z_0, c = latent.encode(nets, frozen, batch, fold_name(key, "z_0")), latent.condition(nets, frozen, batch)
        eps = s.normal(s.example_keys(fold_name(key, "eps"), batch), z_0.shape[1:])
        told = latent.told(nets, batch, key, train=True)
        return {"z_0": z_0, "z_t": latent.first_state(nets, c, eps, steps), "c": c, **told}

    return begin, diffusion.trajectory(nets.sampler, steps, nets.alpha_bar, start)


def _make_loss(nets: latent.Nets, levels, terms: Callable) -> Callable:
    """Returns UpdatePath.loss_fn, which computes Eq. 9 at point i of `levels` and the DDIM step to the next point.

    No gradient passes through that step.
    """

    def loss_fn(params, frozen, batch, key, point, i, disc=None):
        z_0, z_t, key = point["z_0"], point["z_t"], jax.random.fold_in(fold_name(key, "point"), i)
        t = jnp.full(len(z_t), jnp.asarray(levels.t, jnp.int32)[i])
        a_t, a_s = jnp.asarray(levels.alpha_bar, jnp.float32)[i + jnp.arange(2)]
        drop_keys = s.example_keys(fold_name(key, "dropout"), batch)
        told = {name: point[name] for name in ("strength", "label") if name in point}
        out = latent.estimate(nets, params["unet"], z_t, t, point["c"], drop_keys, told)
        eps = (z_t - jnp.sqrt(a_t) * z_0) / jnp.sqrt(1 - a_t)
        metrics = jax.tree.map(jnp.mean, terms(params, frozen, batch, key, Point(t, z_0, eps, out), disc))
        both = metrics["loss"] + metrics.get("d", 0.0)  # the gradient of neither reaches the other's weights
        z_s = jax.lax.stop_gradient(diffusion.ddim_step(z_t, out.eps_hat, a_t, a_s))
        return both, (metrics, {**point, "z_t": z_s})

    return loss_fn
