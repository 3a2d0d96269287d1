"""Stage 1: E, D and f_theta together, L1 between the render at a random size and the image resized to it (paper 4.2).

With double_z the latent is a posterior sample and the KL to N(0, 1) is added. Both terms are sums per image over the
number of the image's values, as in the LDM auto-encoders, whose weight (1e-6) therefore means the same here.
"""

import jax.numpy as jnp

from arbiscale_jax import models

from . import stage as s


def kl_to_standard_normal(mean, log_var):
    """KL(N(mean, exp(log_var)) || N(0, 1)), summed over h, w, c -> [b], in nats."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, axis=(1, 2, 3))


def make_stage(config) -> s.Stage:
    """Builds stage 1; with loss.freeze_encoder only D and f_theta are trained."""
    s.check_sizes(config)
    net = models.build_first_stage(config.model, s.compute_dtype(config))
    kl_weight, size = config.loss.kl_weight, config.data.image_size

    def init(key, batch):
        return {"first_stage": s.init_first_stage(net, key, batch)}

    def losses(weights, batch, z):
        return jnp.mean(jnp.abs(s.render_window(net, weights, z, batch) - batch["target"]))

    def loss_fn(params, frozen, batch, key):
        weights, x = s.first_stage_params(params, frozen), batch["image"]
        mean, log_var = net.apply({"params": weights}, x, method="posterior")
        l1 = losses(weights, batch, s.draw_latent(key, mean, log_var))
        if log_var is None:
            return l1, {}
        kl = jnp.mean(kl_to_standard_normal(mean, log_var))
        return l1 + kl_weight * kl / x[0].size, {"l1": l1, "kl": kl}

    def eval_fn(params, frozen, batch, key):
        weights, x = s.first_stage_params(params, frozen), batch["image"]
        mean, _ = net.apply({"params": weights}, x, method="posterior")
        x_hat = s.render_whole(net, weights, mean, size)
        return {"loss": losses(weights, batch, mean), "psnr": s.psnr(x_hat, x)}, jnp.stack([x, x_hat], axis=1)

    trained = ("first_stage/decoder", "first_stage/liif") if config.loss.freeze_encoder else ("first_stage",)
    return s.Stage(init, trained, loss_fn, eval_fn)
