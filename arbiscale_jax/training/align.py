"""Stage 3: the diffusion model aligned with the frozen decoder (paper 4.4, Eq. 7-9).

The gradient of the reconstruction reaches the U-Net through f_theta and D, whose weights stay; with
loss.align_decoder they are trained along, and a loss on the renders of true latents keeps them a decoder. `random_t`
(the reference code) draws a time per example and makes one update. `reverse_ddim` (the paper's text, after
DiffusionCLIP, Kim et al. 2022, 4) inverts z_0 by DDIM and comes back along the same levels, with an update at each.
`sampling` walks the path that sampling itself takes, from the noised condition or from noise (SR alone, where the end
is known).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from arbiscale_jax import diffusion, models
from arbiscale_jax.errors import UserError

from . import latent
from . import stage as s
from .adversary import make_path_adversary
from .appearance import make_appearance
from .image_losses import l1

MODES = ("random_t", "reverse_ddim", "sampling")
RENDER_SIZES = ("target", "image", "latent")
NORMS, WEIGHTS = ("l2", "l1"), ("snr", "one")
DECODER = ("first_stage/decoder", "first_stage/liif")


class Point(NamedTuple):
    """What the U-Net made of one z_t."""

    t: jax.Array  # [b]
    z_0: jax.Array  # the true latent, scaled
    eps: jax.Array  # the noise that leads from it to z_t
    out: latent.Estimate


def make_stage(config) -> s.Stage:
    """Builds stage 3: lambda_dm L_dm + lambda_recon L_recon (Eq. 9).

    Raises: UserError for an unknown or impossible value of a field.
    """
    loss = config.loss
    choices = {"align_mode": MODES, "render_size": RENDER_SIZES, "align_norm": NORMS, "align_weight": WEIGHTS}
    for field, known in choices.items():
        if loss[field] not in known:
            raise UserError(f"loss.{field} is one of {', '.join(known)}, got {loss[field]!r}.")
    s.check_least(config, {"loss.lambda_dm": 0, "loss.lambda_recon": 0, "loss.weight_cap": 0})
    s.check_least(config, {"loss.align_true_weight": 0})
    if loss.align_decoder and not loss.align_true_weight:
        raise UserError(
            "loss.align_decoder needs loss.align_true_weight above 0: without a loss on true latents D and f_theta "
            "become a sharpener."
        )
    nets = latent.build_nets(config)
    size = {"target": s.smallest_window(config), "image": nets.image_size}
    side = size.get(loss.render_size, nets.image_size // models.spatial_factor(config.model))
    perceptual = s.load_perceptual(config, "loss.align_lpips_weight", side)
    adversary = make_path_adversary(config, side)
    if adversary and loss.align_mode == "random_t":
        raise UserError("loss.align_disc_weight needs a path; set loss.align_mode to sampling or reverse_ddim.")

    appearance, cap = make_appearance(config, loss.align_lpips_weight), loss.weight_cap

    def render_and_truth(weights, z, batch):
        """Renders unscaled z as loss.render_size says -> the render and the image at its size, both [b p p 3]."""
        if loss.render_size == "target":
            return s.render_window(nets.first_stage, weights, z, batch, nets.finer), batch["target"]
        rows, cols = (models.axis(cells * nets.first_stage.subcells, side) for cells in z.shape[1:3])
        x_hat, x = nets.first_stage.apply({"params": weights}, z, rows, cols, method="render"), batch["image"]
        return x_hat, x if x.shape == x_hat.shape else jax.image.resize(x, x_hat.shape, "cubic")  # antialiased

    def snr_weight(t):
        weight = diffusion.snr_weight(t, nets.alpha_bar, cap)
        return weight if loss.align_weight == "snr" else jnp.ones_like(weight)

    def recon_terms(frozen, x_hat, x, weight, key):
        """The second half of Eq. 9 with what is asked of the render beside it, [b], and its parts."""
        distance = diffusion.mean_square(x_hat - x) if loss.align_norm == "l2" else l1(x_hat, x)
        looks = appearance.terms(frozen.get("lpips"), x_hat, x, key)
        total = loss.lambda_recon * weight * (distance + appearance.total(looks))
        return total, {"recon": weight * distance, **looks}

    def true_terms(weights, frozen, batch, key):
        """The same of the render of the true latent, without its gradient to E -> [b]."""
        mean, _ = latent.posterior(nets, frozen, batch)
        x_hat, x = render_and_truth(weights, jax.lax.stop_gradient(mean), batch)
        return recon_terms(frozen, x_hat, x, jnp.ones(len(x)), key)[0]

    def terms(params, frozen, batch, key, now: Point, disc=None):
        """Eq. 9 and its parts, one value an example; given a discriminator, with its part, and its own loss d."""
        weight, key_look = snr_weight(now.t), jax.random.fold_in(key, 11)
        weights = s.first_stage_params(params, frozen)
        x_hat, x = render_and_truth(weights, now.out.z_0_hat / frozen["scale_factor"], batch)
        out = {"dm": latent.denoising_loss(nets, now.out, now.z_0, now.eps)}
        if loss.align_mode == "sampling":  # there the error of z_0 stays as t falls: by Eq. 8 the cap is L_dm's as well
            out["dm"] *= weight / (diffusion.snr_weight(now.t, nets.alpha_bar) if nets.predicts == "eps" else 1)
        recon, parts = recon_terms(frozen, x_hat, x, weight, key_look)
        total = loss.lambda_dm * out["dm"] + recon
        if loss.align_decoder:
            parts["true"] = true_terms(weights, frozen, batch, key_look)
            total += loss.align_true_weight * parts["true"]
        if disc is not None:

            def rec_loss(x_hat):
                return jnp.mean(recon_terms(frozen, x_hat, x, weight, key_look)[0])

            share, judged = adversary.loss_fn(disc, x_hat, x, rec_loss, weight)
            total, parts = total + share, {**parts, **judged}
        return {"loss": total, **out, **parts}

    def losses_at(params, frozen, batch, key, t, *, train):
        out = latent.predict(nets, params, frozen, batch, key, t, train=train)
        return terms(params, frozen, batch, key, Point(t, out.z_0, out.eps, out.estimate))

    stage = latent.make_stage(nets, losses_at)._replace(lpips=perceptual)
    if loss.align_decoder:
        stage = stage._replace(trained=(*stage.trained, *DECODER))
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
            return latent.estimate(nets, params["unet"], z_t, t, c).eps_hat

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
    levels = diffusion.trajectory(nets.sampler, steps, nets.alpha_bar, start)

    def begin(params, frozen, batch, key):
        key_z, key_eps = jax.random.split(key)
        z_0, c = latent.encode(nets, frozen, batch, key_z), latent.condition(nets, frozen, batch)
        eps = s.normal(s.example_keys(key_eps, batch), z_0.shape[1:])
        point = {"z_0": z_0, "z_t": latent.first_state(nets, c, eps, steps), "c": c}
        if nets.told:
            point["strength"] = latent.told_strength(nets, batch, jax.random.fold_in(key, 5))
        return point

    return s.Path(steps, begin, _make_path_loss(nets, levels, terms))


def _make_path_loss(nets, levels, terms):
    """Returns Path.loss_fn: Eq. 9 at point i of `levels`, and the DDIM step to the next, detached."""

    def loss_fn(params, frozen, batch, key, point, i, disc=None):
        z_0, z_t = point["z_0"], point["z_t"]
        t = jnp.full(len(z_t), jnp.asarray(levels.t, jnp.int32)[i])
        a_t, a_s = jnp.asarray(levels.alpha_bar, jnp.float32)[i + jnp.arange(2)]
        drop_keys = s.example_keys(jax.random.fold_in(key, i), batch)
        out = latent.estimate(nets, params["unet"], z_t, t, point["c"], drop_keys, point.get("strength"))
        eps = (z_t - jnp.sqrt(a_t) * z_0) / jnp.sqrt(1 - a_t)
        now = Point(t, z_0, eps, out)
        metrics = jax.tree.map(jnp.mean, terms(params, frozen, batch, jax.random.fold_in(key, i), now, disc))
        both = metrics["loss"] + metrics.get("d", 0.0)  # neither reaches the other's weights
        z_s = jax.lax.stop_gradient(diffusion.ddim_step(z_t, out.eps_hat, a_t, a_s))
        return both, (metrics, {**point, "z_t": z_s})

    return loss_fn
