"""Trains stage 3, which aligns the diffusion model with the decoder (paper 4.4, Eq. 7-9).

    L_recon = w(t) |x_hat(z_0_hat) - x|^2,  w(t) = alpha_bar_t / (1 - alpha_bar_t)    (Eq. 7, 8)
    L       = lambda_dm L_dm + lambda_recon L_recon                                    (Eq. 9)

The gradient of the reconstruction reaches the U-Net through f_theta and D, whose weights stay fixed. With
loss.align_decoder they are trained too, and a loss on the renders of true latents keeps them a decoder. loss.align_mode
chooses the z_t at which the losses are computed: `random_t` (the reference code) draws a time per example and makes one
update per step; the other modes follow a path (paths.py) and make an update at each of its points.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from arbiscale_jax import diffusion, models
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import fold_name

from . import latent, paths
from . import stage as s
from .adversary import make_critic, path_loss
from .appearance import make_appearance
from .image_losses import l1

MODES = ("random_t", *paths.MODES)
RENDER_SIZES = ("target", "image", "latent")
NORMS, WEIGHTS = ("l2", "l1"), ("snr", "one")
DECODER = ("first_stage/decoder", "first_stage/liif")  # the weights that loss.align_decoder trains


def make_stage(config) -> s.Stage:
    """Builds stage 3, with the loss lambda_dm L_dm + lambda_recon L_recon (Eq. 9).

    Raises:
      UserError: if a field has an unknown or impossible value.
    """
    _check(config)
    loss, nets = config.loss, latent.build_nets(config)
    side = _render_side(config, nets)
    critic = make_critic(config, "loss.align_disc_weight", side)
    if critic and loss.align_mode == "random_t":
        raise UserError("loss.align_disc_weight needs a path; set loss.align_mode to sampling or reverse_ddim.")
    terms = _make_terms(config, nets, side, critic)

    def losses_at(params, frozen, batch, key, t, *, train):
        out = latent.predict(nets, params, frozen, batch, key, t, train=train)
        return terms(params, frozen, batch, key, paths.Point(t, out.z_0, out.eps, out.estimate))

    stage = latent.make_stage(nets, losses_at)
    trained = (*stage.trained, *DECODER) if loss.align_decoder else stage.trained
    return stage._replace(
        trained=trained,
        lpips=s.load_perceptual(config, "loss.align_lpips_weight", side),
        critic=critic,
        path=None if loss.align_mode == "random_t" else paths.make_path(config, nets, terms),
    )


def _check(config) -> None:
    loss = config.loss
    choices = {"align_mode": MODES, "render_size": RENDER_SIZES, "align_norm": NORMS, "align_weight": WEIGHTS}
    for field, known in choices.items():
        if loss[field] not in known:
            raise UserError(f"loss.{field} is one of {', '.join(known)}, got {loss[field]!r}.")
    least = ("lambda_dm", "lambda_recon", "weight_cap", "align_true_weight")
    s.check_least(config, {f"loss.{field}": 0 for field in least})
    if loss.align_decoder and not loss.align_true_weight:
        raise UserError(
            "loss.align_decoder needs loss.align_true_weight above 0: without a loss on true latents D and f_theta "
            "learn to sharpen instead of to decode."
        )


def _render_side(config, nets: latent.Nets) -> int:
    """Returns the side, in pixels, of the renders that loss.render_size asks for."""
    cells = nets.image_size // models.spatial_factor(config.model)
    return {"target": s.smallest_window(config), "image": nets.image_size, "latent": cells}[config.loss.render_size]


def _make_render(config, nets: latent.Nets, side: int) -> Callable:
    """Returns a function (weights, unscaled z, batch) -> the render and the image at its size, both [b p p 3]."""

    def render(weights, z, batch):
        if config.loss.render_size == "target":
            return s.render_window(nets.first_stage, weights, z, batch, nets.finer), batch["target"]
        rows, cols = (models.axis(cells * nets.first_stage.subcells, side) for cells in z.shape[1:3])
        x_hat, x = nets.first_stage.apply({"params": weights}, z, rows, cols, method="render"), batch["image"]
        return x_hat, x if x.shape == x_hat.shape else jax.image.resize(x, x_hat.shape, "cubic")  # with antialiasing

    return render


def _make_terms(config, nets: latent.Nets, side: int, critic: s.Critic | None) -> Callable:
    """Returns the losses at one z_t, (params, frozen, batch, key, point, disc=None) -> {"loss": [b], parts: [b]}.

    If the weights `disc` of a discriminator are given, the loss includes the adversarial part, and the part d is the
    discriminator's own loss.
    """
    loss, render = config.loss, _make_render(config, nets, side)
    appearance = make_appearance(config, loss.align_lpips_weight)

    def recon_terms(frozen, x_hat, x, weight, key):
        """Computes lambda_recon L_recon with the other losses on the render, [b], and its parts."""
        distance = diffusion.mean_square(x_hat - x) if loss.align_norm == "l2" else l1(x_hat, x)
        looks = appearance.terms(frozen.get("lpips"), x_hat, x, key)
        recon = weight * distance  # Eq. 7
        return loss.lambda_recon * (recon + weight * appearance.total(looks)), {"recon": recon, **looks}

    def true_terms(weights, frozen, batch, key):
        """Computes the same losses on the render of the true latent, without a gradient to E, [b]."""
        mean, _ = latent.posterior(nets, frozen, batch)
        x_hat, x = render(weights, jax.lax.stop_gradient(mean), batch)
        return recon_terms(frozen, x_hat, x, jnp.ones(len(x)), key)[0]

    def terms(params, frozen, batch, key, point: paths.Point, disc=None):
        snr = diffusion.snr_weight(point.t, nets.alpha_bar, loss.weight_cap)  # Eq. 8
        weight, key_look = snr if loss.align_weight == "snr" else jnp.ones_like(snr), fold_name(key, "look")
        weights = s.first_stage_params(params, frozen)
        dm = latent.denoising_loss(nets, point.out, point.z_0, point.eps)  # Eq. 4
        if loss.align_mode == "sampling":  # where the error of z_0 does not fall with t: L_dm has the cap of Eq. 8 too
            dm *= weight / (diffusion.snr_weight(point.t, nets.alpha_bar) if nets.predicts == "eps" else 1)
        x_hat, x = render(weights, point.out.z_0_hat / frozen["scale_factor"], batch)
        recon, parts = recon_terms(frozen, x_hat, x, weight, key_look)
        total = loss.lambda_dm * dm + recon  # Eq. 9
        if loss.align_decoder:
            parts["true"] = true_terms(weights, frozen, batch, fold_name(key, "look_true"))
            total += loss.align_true_weight * parts["true"]
        if disc is not None and critic is not None:

            def rec_loss(x_hat):
                return jnp.mean(recon_terms(frozen, x_hat, x, weight, key_look)[0])

            share, judged = path_loss(critic, loss, disc, (x_hat, x), rec_loss, weight)
            total, parts = total + share, {**parts, **judged}
        return {"loss": total, "dm": dm, **parts}

    return terms
