"""Trains ESRGAN (Wang et al. 2018): L1 alone before loss.disc_start, and then L_percep + lambda L_G^Ra + eta L_1.

loss.disc_weight is lambda, 5e-3 in the paper; with 0 training is the paper's first phase, a network for PSNR. The
paper's learning rates are 2e-4 in the first phase and 1e-4 in the second.
"""

import jax
import jax.numpy as jnp
import optax

from arbiscale_jax import baselines
from arbiscale_jax.errors import UserError

from . import esrgan_losses as losses
from . import stage as s


def make_stage(config) -> s.Stage:
    """Builds the stage, and raises UserError if a field of `loss` or a size does not fit."""
    fields, loss, size = config.model.baseline.to_dict(), config.loss, config.data.image_size
    s.check_least(config, {"loss.disc_weight": 0, "loss.disc_start": 0, "loss.disc_learning_rate": 0})
    if size != baselines.SCALE * config.data.lr_size:
        raise UserError(f"data.image_size={size} must be {baselines.SCALE} times data.lr_size={config.data.lr_size}.")
    net, dtype = baselines.build(fields), s.compute_dtype(config)
    critic = _make_critic(loss, size, dtype) if loss.disc_weight else None
    vgg = s.load_perceptual(config, "loss.disc_weight", size)

    def init(key, batch):
        return {"baseline": baselines.init(fields, key)}

    def loss_fn(params, frozen, batch, key, disc=None):
        x_hat, x = net.apply({"params": params["baseline"]}, batch["lr"]), batch["image"]
        pixel = jnp.mean(losses.pixel_loss(x_hat, x))
        if disc is None or critic is None:
            return pixel, {}
        percep = jnp.mean(losses.perceptual_loss(frozen["lpips"][0], x_hat, x, dtype))
        fixed = jax.lax.stop_gradient(disc)
        g = losses.relativistic_generator_loss(
            critic.net.apply({"params": fixed}, x), critic.net.apply({"params": fixed}, x_hat)
        )
        real, fake = (critic.net.apply({"params": disc}, y) for y in (x, jax.lax.stop_gradient(x_hat)))
        d = losses.relativistic_discriminator_loss(real, fake)
        total = losses.generator_objective(percep, g, pixel, loss.disc_weight)
        return total + d, {"loss": total, "l1": pixel, "percep": percep, "g": g, "d": d}

    def eval_fn(params, frozen, batch, key):
        x, x_hat = batch["image"], net.apply({"params": params["baseline"]}, batch["lr"])
        metrics = {"loss": jnp.mean(losses.pixel_loss(x_hat, x)), "psnr": s.psnr(x_hat, x)}
        return metrics, s.beside_bicubic(batch, x_hat)

    return s.Stage(init, ("baseline",), loss_fn, eval_fn, lpips=vgg, critic=critic)


def _make_critic(loss, size: int, dtype) -> s.Critic:
    net, tx = baselines.VGGDiscriminator(loss.disc_ch, dtype=dtype), optax.adam(loss.disc_learning_rate, b1=0.9)

    def init(key):
        params = net.init(key, jnp.zeros((1, size, size, 3)))["params"]
        return {"params": params, "opt_state": tx.init(params)}

    return s.Critic(net, init, tx, "relativistic", loss.disc_start)
