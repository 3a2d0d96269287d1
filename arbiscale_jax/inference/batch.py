"""Many generated images at once, spread over devices: for evaluation, where speed counts more than equal bytes."""

import math
from collections.abc import Sequence

import jax
import numpy as np

from .model import Model
from .render import TILES, render_tiles, to_integers


def sample_numbers(
    model: Model, numbers: Sequence[int], *, seed=0, steps=None, sampler=None, eta=None, put=lambda x: x
):
    """Samples the latents with these numbers together -> [n, h, w, c].

    Number i is `model.generate_latent`'s latent i up to rounding, whatever the batch.

    Args: put, places the noise on devices; the batch is computed where it lies.
    Raises: UserError as `generate_latent`.
    """
    shape = model.generated_shape()
    keys = model._keys(seed, numbers)
    draw = jax.vmap(jax.random.fold_in, (0, None))
    z_T = put(model._noise(draw(keys, 0), shape))
    return model._sample_with(
        z_T, None, draw(keys, 1), model._options(steps=steps, sampler=sampler, eta=eta, start=1.0)
    )


def decode_features(model: Model, z):
    """Runs D and the renderer's first layer on scaled latents z [b h w c] -> [b h w d], for `render_features`."""
    return model._features(model.params["first_stage"], z / model.scale_factor)


def render_features(model: Model, features, size: tuple[int, int]) -> np.ndarray:
    """Runs f_theta on `decode_features`' result: uint8 [b, H, W, 3]; tiles shrink with the batch, memory stays."""
    tile = max(16, int(TILES.get(jax.default_backend(), 256) / math.sqrt(len(features) / len(features.devices()))))
    out = np.empty((len(features), *size, 3), np.uint8)

    def grid(features, rows, cols):
        return model._grid(model.params["first_stage"], features, rows, cols)

    finer = model.finer(features.shape[1:3], size)
    render_tiles(grid, features, size, (0, 0, *size), out, to_integers, tile, finer=finer)
    return out
