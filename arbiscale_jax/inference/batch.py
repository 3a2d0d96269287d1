"""Generates many images at once, spread over devices, for evaluation.

Speed matters more here than results that are equal in every byte.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np

from .model import Model
from .render import TILES, View, render_tiles, to_integers


def sample_numbers(
    model: Model, numbers: Sequence[int], *, seed=0, steps=None, sampler=None, eta=None, put=lambda x: x
):
    """Samples the latents of these numbers together.

    The latent of number i is latent i of `model.generate_latent` up to rounding, whichever others are in the batch.

    Args:
      model: the model, which generates without a condition.
      numbers: the numbers of the latents.
      seed: the seed of the noise.
      steps: the number of evaluations of the U-Net; None means the model's own.
      sampler: one of diffusion.SAMPLERS; None means the model's own.
      eta: the share of the noise that DDIM adds in each step; None means the model's own.
      put: places the noise on devices; the batch is computed where the noise lies.

    Returns:
      The latents [n, h, w, c].

    Raises:
      UserError: as `generate_latent` does.
    """
    shape = model.generated_shape()
    keys = model._keys(seed, numbers)
    draw = jax.vmap(jax.random.fold_in, (0, None))
    z_T = put(model._noise(draw(keys, 0), shape))
    return model._sample_with(
        z_T, None, draw(keys, 1), model._options(steps=steps, sampler=sampler, eta=eta, start=1.0)
    )


def decode_features(model: Model, z):
    """Runs D and the renderer's first layer on scaled latents z [b h w c]; returns [b h w d] for `render_features`."""
    return model._features(model.params["first_stage"], z / model.scale_factor)


def render_features(model: Model, features, size: tuple[int, int]) -> np.ndarray:
    """Runs f_theta on the result of `decode_features` and returns uint8 [b, H, W, 3].

    The tiles are smaller for larger batches, so that the memory in use stays the same.
    """
    tile = max(16, int(TILES.get(jax.default_backend(), 256) / math.sqrt(len(features) / len(features.devices()))))
    out = np.empty((len(features), *size, 3), np.uint8)

    def grid(features, rows, cols):
        return model._grid(model.params["first_stage"], features, rows, cols)

    finer = model.finer(features.shape[1:3], size)
    render_tiles(grid, features, View(size, (0, 0, *size), None, finer), out, to_integers, tile)
    return out
