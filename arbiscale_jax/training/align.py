"""Stage 3: the diffusion model aligned with the frozen decoder (paper 4.4, Eq. 7-9).

The gradient of the reconstruction reaches the U-Net through f_theta and D, whose weights stay. `random_t` (the
reference code) draws a time per example and makes one update. `reverse_ddim` (the paper's text, after DiffusionCLIP,
Kim et al. 2022, 4) inverts z_0 by DDIM and comes back along the same levels, with an update at each. `sampling` walks
the path that sampling itself takes, from the noised condition or from noise (SR alone, where the end is known).
"""

import jax
import jax.numpy as jnp

from arbiscale_jax import diffusion, models
from arbiscale_jax.errors import UserError

from . import latent
from . import stage as s
from .adversary import make_path_adversary

MODES = ("random_t", "reverse_ddim", "sampling")
RENDER_SIZES = ("target", "image", "latent")


def make_stage(config) -> s.Stage:
    """Builds stage 3: lambda_dm L_dm + lambda_recon L_recon (Eq. 9).

    Raises: UserError for an unknown or impossible value of a field.
    """
    loss = config.loss
    for field, known in (("align_mode", MODES), ("render_size", RENDER_SIZES)):
        if loss[field] not in known:
            raise UserError(f"loss.{field} is one of {', '.join(known)}, got {loss[field]!r}.")
    s.check_least(config, {"loss.lambda_dm": 0, "loss.lambda_recon": 0, "loss.weight_cap": 0})
    nets = latent.build_nets(config)
    size = {"target": config.data.target_patch, "image": nets.image_size}
    side = size.get(loss.render_size, nets.image_size // models.spatial_factor(config.model))
    perceptual = s.load_perceptual(config, "loss.align_lpips_weight", side)
    adversary = make_path_adversary(config, side)
    if adversary and loss.align_mode == "random_t":
        raise UserError("loss.align_disc_weight needs a path; set loss.align_mode to sampling or reverse_ddim.")

    def render_and_truth(frozen, z, batch):
        """Renders unscaled z as loss.render_size says -> the render and the image at its size, both [b p p 3]."""
        if loss.render_size == "target":
            return s.render_window(nets.first_stage, frozen["first_stage"], z, batch), batch["target"]
        rows, cols = (models.axis(cells, side) for cells in z.shape[1:3])
        x_hat = nets.first_stage.apply({"params": frozen["first_stage"]}, z, rows, cols, method="render")
        x = batch["image"]
        return x_hat, x if x.shape == x_hat.shape else jax.image.resize(x, x_hat.shape, "cubic")  # antialiased

    def recon_terms(frozen, x_hat, x, t, weight):
        """The second half of Eq. 9, LPIPS included, and its parts, one value an example."""
        out = {"recon": diffusion.recon_loss(x_hat, x, t, nets.alpha_bar, loss.weight_cap)}
        total = loss.lambda_recon * out["recon"]
        if perceptual:
            out["lpips"] = s.perceptual_loss(frozen["lpips"], x_hat, x, s.compute_dtype(config))
            total += loss.lambda_recon * loss.align_lpips_weight * weight * out["lpips"]
        return total, out

    def terms(frozen, batch, z_0_hat, eps_hat, eps, t, disc=None):
        """Eq. 9 and its parts, one value an example; given a discriminator, with its part, and its own loss d."""
        weight = diffusion.snr_weight(t, nets.alpha_bar, loss.weight_cap)
        x_hat, x = render_and_truth(frozen, z_0_hat / frozen["scale_factor"], batch)
        out = {"dm": diffusion.eps_loss(eps_hat, eps)}
        if loss.align_mode == "sampling":  # there the error of z_0 stays as t falls: by Eq. 8 the cap is L_dm's as well
            out["dm"] *= weight / diffusion.snr_weight(t, nets.alpha_bar)
        recon, parts = recon_terms(frozen, x_hat, x, t, weight)
        total = loss.lambda_dm * out["dm"] + recon
        if disc is not None:

            def rec_loss(x_hat):
                return jnp.mean(recon_terms(frozen, x_hat, x, t, weight)[0])

            share, judged = adversary.loss_fn(disc, x_hat, x, rec_loss, weight)
            total, parts = total + share, {**parts, **judged}
        return {"loss": total, **out, **parts}

    def losses_at(params, frozen, batch, key, t, *, train):
        out = latent.predict(nets, params, frozen, batch, key, t, train=train)
        z_0_hat = diffusion.predict_z_0(out.z_t, out.eps_hat, t, nets.alpha_bar)
        return terms(frozen, batch, z_0_hat, out.eps_hat, out.eps, t)

    stage = latent.make_stage(nets, losses_at)._replace(lpips=perceptual)
    make_path = {"reverse_ddim": _reverse_path, "sampling": _sampling_path}.get(loss.align_mode)
    return stage._replace(path=make_path(config, nets, terms), adversary=adversary) if make_path else stage


def _reverse_path(config, nets, terms) -> s.Path:
    """Builds the path of `reverse_ddim`: levels as in sampling with align_steps, below align_t0.

    The inversion uses the weights before the step, the step to the next level the prediction before the update. L_dm is
    the z_0 error under Eq. 8's weight, that is the error of the noise that leads from z_0 to z_t.
    Raises: UserError if there are no such levels.
    """
    T, steps, t0 = len(nets.alpha_bar), config.loss.align_steps, config.loss.align_t0 or len(nets.alpha_bar)
    if not 2 <= t0 <= T:
        raise UserError(f"loss.align_t0 lies in [2, {T}], or is 0 for the whole schedule, got {t0}.")
    if not 1 <= steps <= t0:
        raise UserError(f"loss.align_steps lies in [1, {t0}], the times below loss.align_t0, got {steps}.")
    levels = diffusion.ddim_trajectory(steps, nets.alpha_bar[:t0])

    def begin(params, frozen, batch, key):
        z_0, c = latent.encode(nets, frozen, batch, key), latent.condition(nets, frozen, batch)

        def eps_fn(z_t, t):
            return nets.unet.apply({"params": params["unet"]}, z_t, t, c)

        z_t = diffusion.ddim_inversion(eps_fn, z_0, nets.alpha_bar[:t0], steps=steps)
        return {"z_0": z_0, "z_t": z_t, "c": c}

    return s.Path(steps, begin, _make_path_loss(nets, levels, terms))


def _sampling_path(config, nets, terms) -> s.Path:
    """Builds the path of `sampling`: the align_steps levels that sampling visits from model.sampling.start on.

    z_t holds what the U-Net has made of the condition so far, not q(z_0): training meets the states of sampling.
    Raises: UserError if there are no such levels, or no condition that ties the end to the image.
    """
    T, steps, start = len(nets.alpha_bar), config.loss.align_steps, nets.start or 1.0
    if nets.interpolation is None:
        raise UserError("loss.align_mode=sampling needs super-resolution (model.condition.enabled); use another mode.")
    if not 1 <= steps <= max(1, round(start * T)):
        last = round(start * T)
        raise UserError(f"loss.align_steps lies in [1, {last}], the times that sampling visits, got {steps}.")
    levels = diffusion.ddim_trajectory(steps, nets.alpha_bar, start)

    def begin(params, frozen, batch, key):
        key_z, key_eps = jax.random.split(key)
        z_0, c = latent.encode(nets, frozen, batch, key_z), latent.condition(nets, frozen, batch)
        eps = s.normal(s.example_keys(key_eps, batch), z_0.shape[1:])
        return {"z_0": z_0, "z_t": latent.first_state(nets, c, eps, steps), "c": c}

    return s.Path(steps, begin, _make_path_loss(nets, levels, terms))


def _make_path_loss(nets, levels, terms):
    """Returns Path.loss_fn: Eq. 9 at point i of `levels`, and the DDIM step to the next, detached."""

    def loss_fn(params, frozen, batch, key, point, i, disc=None):
        z_0, z_t = point["z_0"], point["z_t"]
        t = jnp.full(len(z_t), jnp.asarray(levels.t, jnp.int32)[i])
        a_t, a_s = jnp.asarray(levels.alpha_bar, jnp.float32)[i + jnp.arange(2)]
        drop_keys = s.example_keys(jax.random.fold_in(key, i), batch)
        eps_hat = nets.unet.apply({"params": params["unet"]}, z_t, t, point["c"], drop_keys)
        z_0_hat = diffusion.predict_z_0(z_t, eps_hat, t, nets.alpha_bar)
        eps = (z_t - jnp.sqrt(a_t) * z_0) / jnp.sqrt(1 - a_t)
        metrics = jax.tree.map(jnp.mean, terms(frozen, batch, z_0_hat, eps_hat, eps, t, disc))
        both = metrics["loss"] + metrics.get("d", 0.0)  # neither reaches the other's weights
        z_s = jax.lax.stop_gradient(diffusion.ddim_step(z_t, eps_hat, a_t, a_s))
        return both, (metrics, {**point, "z_t": z_s})

    return loss_fn
