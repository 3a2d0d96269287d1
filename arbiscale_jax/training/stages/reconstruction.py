"""Trains stage 1, E, D and f_theta together, on renders at random sizes against the image resized to them (paper 4.2).

The loss is L1, with coarse colours, the spectrum, LPIPS and a discriminator if their weights are not 0. With double_z
the latent is a posterior sample, and the KL divergence to N(0, 1) is added. As in the LDM auto-encoders, L1 and KL are
sums per image divided by the number of values of the image, so that their weights mean the same here.

With loss.latent_noise, D also sees latents with noise, of a strength that is drawn for each example. It then makes even
surfaces of latents that were sampled, which are never as clean as those of pictures.
"""

import jax
import jax.numpy as jnp

from arbiscale_jax import models
from arbiscale_jax.runtime.random import fold_name

from . import stage as s
from .adversary import Rendering, first_stage_loss, make_critic
from .appearance import make_appearance


def kl_to_standard_normal(mean, log_var):
    """Computes KL(N(mean, exp(log_var)) || N(0, 1)), summed over h, w and c, as [b] in nats."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, axis=(1, 2, 3))


def add_noise(keys, z, most: float):
    """Adds normal noise to latents, whose standard deviation is drawn per example between 0 and `most` times theirs.

    Args:
      keys: one key per example, [b].
      z: latents, [b h w c]; their own standard deviation is that of the batch.
      most: the largest share of it, at least 0.

    Returns:
      The noisy latents.
    """
    deviation = jax.lax.stop_gradient(jnp.std(z))
    strength = jax.vmap(lambda key: jax.random.uniform(fold_name(key, "strength"), (1, 1, 1)))(keys)  # b 1 1 1
    return z + most * deviation * strength * s.normal(keys, z.shape[1:])


def make_stage(config) -> s.Stage:
    """Builds stage 1; with loss.freeze_encoder only D and f_theta are trained.

    Raises:
      UserError: if a field has a value that does not fit.
    """
    s.check_sizes(config)
    dtype, loss, size = s.compute_dtype(config), config.loss, config.data.image_size
    net = models.build_first_stage(config.model, dtype, config.train.remat)
    s.check_least(config, {"loss.kl_weight": 0, "loss.latent_noise": 0})
    appearance, finer = make_appearance(config, loss.lpips_weight), s.finer_factors(config)
    critic = make_critic(config, "loss.disc_weight", s.smallest_window(config))
    last = f"kernel_{len(config.model.liif.hidden)}"  # the layer of f_theta's MLP that gives RGB

    def init(key, batch):
        return {"first_stage": s.init_first_stage(net, key, batch)}

    def rec_terms(frozen, x_hat, x, key):
        terms = {"l1": jnp.mean(jnp.abs(x_hat - x))}
        return terms | jax.tree.map(jnp.mean, appearance.terms(frozen.get("lpips"), x_hat, x, key))

    def rec_loss(terms):
        return terms["l1"] + appearance.total(terms)

    def forward(params, frozen, batch, key) -> Rendering:
        weights, x = s.first_stage_params(params, frozen), batch["target"]
        mean, log_var = net.apply({"params": weights}, batch["image"], method="posterior")
        z = s.draw_latent(s.example_keys(fold_name(key, "z_0"), batch), mean, log_var)
        if loss.latent_noise:
            z = add_noise(s.example_keys(fold_name(key, "latent_noise"), batch), z, loss.latent_noise)
        features = net.apply({"params": weights}, z, method="features")
        x_hat, key_look = s.render_features(net, weights, features, batch, finer), fold_name(key, "look")

        def render(kernel):
            liif, fixed = jax.lax.stop_gradient((weights["liif"], features))
            return s.render_features(net, {"liif": {**liif, last: kernel}}, fixed, batch, finer)

        def rec_part(x_hat):
            return rec_loss(rec_terms(frozen, x_hat, x, key_look))

        terms = rec_terms(frozen, x_hat, x, key_look)
        total = rec_loss(terms)
        if log_var is not None:
            terms["kl"] = jnp.mean(kl_to_standard_normal(mean, log_var))
            total += loss.kl_weight * terms["kl"] / batch["image"][0].size
        return Rendering(total, terms, x_hat, x, weights["liif"][last], render, rec_part)

    def loss_fn(params, frozen, batch, key, disc=None):
        out = forward(params, frozen, batch, key)
        if disc is not None and critic is not None:
            return first_stage_loss(critic, loss, disc, out)
        return out.loss, out.metrics if len(out.metrics) > 1 else {}

    def eval_fn(params, frozen, batch, key):
        weights, x = s.first_stage_params(params, frozen), batch["image"]
        mean, _ = net.apply({"params": weights}, x, method="posterior")
        x_hat = s.render_whole(net, weights, mean, size)
        terms = rec_terms(frozen, s.render_window(net, weights, mean, batch), batch["target"], key)
        metrics = {"loss": rec_loss(terms), **(terms if len(terms) > 1 else {}), "psnr": s.psnr(x_hat, x)}
        return metrics, jnp.stack([x, x_hat], axis=1)

    trained = ("first_stage/decoder", "first_stage/liif") if loss.freeze_encoder else ("first_stage",)
    return s.Stage(
        init,
        trained,
        loss_fn,
        eval_fn,
        lpips=s.load_perceptual(config, "loss.lpips_weight", s.smallest_window(config)),
        critic=critic,
    )
