"""Trains SR3 (Saharia et al. 2021) and IDM (Gao et al. 2023): L1 of the noise that is predicted in an image.

SR3 sees images of one size, and IDM images of several, in turns.
"""

import jax.numpy as jnp

from arbiscale_jax import baselines, diffusion
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import fold_name

from . import stage as s

EVAL_STEPS = 20  # evaluations of the network for the pictures of a validation


def image_sizes(config) -> list[int]:
    """Returns the sides of the images that training sees in turns, the largest first.

    IDM sees model.baseline.train_sizes of them, spaced evenly up to data.image_size.

    Raises:
      UserError: if data.image_size has no so many parts.
    """
    size, count = config.data.image_size, config.model.baseline.get("train_sizes", 1)
    if not 1 <= count <= size:
        raise UserError(f"model.baseline.train_sizes is from 1 to data.image_size={size}, got {count}.")
    return [round(size * part / count) for part in range(count, 0, -1)]


def make_stage(config) -> s.Stage:
    """Builds the stage, and raises UserError if the noise schedule or the sizes of the images do not fit."""
    fields, size, lr_size = config.model.baseline.to_dict(), config.data.image_size, config.data.lr_size
    net, of_sr3 = baselines.build(fields), fields["method"] == "sr3"
    try:
        alpha_bar = diffusion.make_alpha_bar(fields["timesteps"], fields["first_beta"], fields["last_beta"], power=1)
    except ValueError as e:
        raise UserError(f"model.baseline has no noise schedule: {e}") from e
    if size != round(fields["scale"] * lr_size):
        raise UserError(
            f"data.image_size={size} must be model.baseline.scale={fields['scale']:g} times data.lr_size={lr_size}."
        )
    multiple = 2 ** (len(fields["channel_mult"]) - 1)
    if of_sr3 and size % multiple:
        raise UserError(f"data.image_size={size} must be a multiple of {multiple} for model.baseline.channel_mult.")
    image_sizes(config)

    def init(key, batch):
        return {"baseline": baselines.init(fields, key)}

    def eps_fn(params, lr, side: int, drop_keys=None):
        weights = {"params": params["baseline"]}
        if of_sr3:
            c = baselines.upsampled(lr, (side, side))
            return lambda x_t, level: net.apply(weights, x_t, level, c, drop_keys)
        fraction = jnp.full(len(lr), baselines.size_fraction(lr_size, side, fields["scale"]))
        c = net.apply(weights, lr, (side, side), method="encode")
        return lambda x_t, level: net.apply(weights, x_t, level, c, fraction, drop_keys, method="denoise")

    def loss_at(params, batch, key, drop_keys=None):
        eps_hat = eps_fn(params, batch["lr"], batch["image"].shape[1], drop_keys)
        return jnp.mean(baselines.training_loss(key, eps_hat, batch["image"], alpha_bar))

    def loss_fn(params, frozen, batch, key):
        drop_keys = s.example_keys(fold_name(key, "dropout"), batch) if fields["dropout"] else None
        return loss_at(params, batch, key, drop_keys), {}

    def eval_fn(params, frozen, batch, key):
        x, lr = batch["image"], batch["lr"]
        steps, key_sample = min(EVAL_STEPS, len(alpha_bar)), fold_name(key, "sample")
        x_hat = baselines.sample(key_sample, eps_fn(params, lr, size), x.shape, alpha_bar, steps=steps)
        return {"loss": loss_at(params, batch, key), "psnr": s.psnr(x_hat, x)}, s.beside_bicubic(batch, x_hat)

    return s.Stage(init, ("baseline",), loss_fn, eval_fn)
