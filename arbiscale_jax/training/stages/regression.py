"""Trains LIIF (Chen et al. 2021): L1 between a window of its render at a random scale and the true image.

The window has data.target_patch pixels per side, so 48 x 48 gives the 2,304 pixels of the paper's section 4.2, which
draws them at random from the whole image.
"""

from typing import Any

import jax
import jax.numpy as jnp

from arbiscale_jax import baselines

from . import stage as s


def make_stage(config) -> s.Stage:
    """Builds the stage; scales go from data.target_min / data.lr_size to data.target_max / data.lr_size."""
    fields, size = config.model.baseline.to_dict(), config.data.image_size
    net = baselines.build(fields)

    def init(key, batch):
        return {"baseline": baselines.init(fields, key)}

    def render(params, batch):
        features: Any = net.apply({"params": params["baseline"]}, batch["lr"], method="features")
        rows, cols = s.window_axes(batch, features.shape[1:3])
        products = jax.default_backend() != "cpu"
        return net.apply({"params": params["baseline"]}, features, rows, cols, products=products, method="render")

    def loss_fn(params, frozen, batch, key):
        return jnp.mean(jnp.abs(render(params, batch) - batch["target"])), {}

    def eval_fn(params, frozen, batch, key):
        x, lr = batch["image"], batch["lr"]
        x_hat = jax.lax.map(lambda one: net.apply({"params": params["baseline"]}, one[None], (size, size))[0], lr)
        loss, _ = loss_fn(params, frozen, batch, key)
        return {"loss": loss, "psnr": s.psnr(x_hat, x)}, s.beside_bicubic(batch, x_hat)

    return s.Stage(init, ("baseline",), loss_fn, eval_fn)
