"""What a stage is to the loop, and what the stages share: encoding, the SR condition, rendering.

Trees of weights have the top-level keys first_stage (encoder, decoder, liif), unet and scale_factor; `params` are the
trained ones, `frozen` the others. Axis letters: b batch, h w latent cells, c latent channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arbiscale_jax import models
from arbiscale_jax.errors import UserError

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Stage(NamedTuple):
    """A stage of training, built from a configuration alone."""

    init: Callable  # (key, batch) -> random weights of every network it uses: {"first_stage": ..., "unet": ...}
    trained: tuple[str, ...]  # paths into that tree; the rest is frozen and must come from somewhere
    loss_fn: Callable  # (params, frozen, batch, key) -> (loss [], metrics {name: []})
    eval_fn: Callable  # (params, frozen, batch, key) -> (metrics with loss, panels [b k H W 3])
    scale_factor: Callable | None = None  # (frozen, batch, key) -> [], for a fresh run that was given none


def compute_dtype(config):
    """Raises: UserError for a dtype that is not one of DTYPES."""
    if config.dtype not in DTYPES:
        raise UserError(f"dtype is one of {', '.join(DTYPES)}, got {config.dtype!r}.")
    return DTYPES[config.dtype]


def check_sizes(config) -> None:
    """Raises: UserError if the training crop does not fit the networks."""
    f, size = models.spatial_factor(config.model), config.data.image_size
    if size % f:
        raise UserError(f"data.image_size={size} must be a multiple of {f}, the factor of model.first_stage.ch_mult.")


def init_first_stage(net, key, batch):
    """Makes E, D and f_theta's random weights."""
    cells = models.axis(1, 1)
    return net.init(key, batch["image"][:1], cells, cells)["params"]


def first_stage_params(params, frozen) -> dict:
    """Joins what of E, D and f_theta is trained and what is frozen."""
    return {**frozen.get("first_stage", {}), **params.get("first_stage", {})}


def draw_latent(key, mean, log_var):
    """Draws from the posterior N(mean, exp(log_var)), or returns the mean where log_var is None (no double_z)."""
    if log_var is None:
        return mean
    return mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)


def render_window(net, weights, z, batch):
    """Renders the window that batch["target"] shows: unscaled z [b h w c] -> [b p p 3]."""
    patch = batch["target"].shape[1]

    def place(cells, start):  # each example has its own size and window
        return jax.vmap(lambda size, first: models.axis(cells, size, first, patch, xp=jnp))(batch["target_size"], start)

    rows, cols = place(z.shape[1], batch["target_start"][:, 0]), place(z.shape[2], batch["target_start"][:, 1])
    return net.apply({"params": weights}, z, rows, cols, method="render")


def render_whole(net, weights, z, size: int):
    """Renders unscaled z [b h w c] at size x size, one example at a time to bound memory -> [b size size 3]."""
    rows, cols = models.axis(z.shape[1], size), models.axis(z.shape[2], size)
    return jax.lax.map(lambda one: net.apply({"params": weights}, one[None], rows, cols, method="render")[0], z)


def psnr(x_hat, x):
    """Peak signal-to-noise ratio of images over [-1, 1], in dB, mean over the batch -> []."""
    error = jnp.mean(jnp.square(jnp.clip(x_hat, -1, 1) - x), axis=(1, 2, 3))
    return jnp.mean(10 * jnp.log10(4 / jnp.maximum(error, 1e-10)))
