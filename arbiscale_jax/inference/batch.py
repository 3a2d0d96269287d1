"""Decodes and renders many latents of one size at once, spread over devices, for evaluation and training."""

import jax
import numpy as np

from .engine import Engine, tile_side
from .tiles import make_sides


def decode_features(engine: Engine, z) -> jax.Array:
    """Applies D and the first layer of f_theta to latents z [b h w c], where they lie -> [b h' w' d]."""
    return engine.networks.run_features(engine.first_stage("decoder"), z)


def render_features(engine: Engine, features: jax.Array, size: tuple[int, int]) -> np.ndarray:
    """Applies f_theta to the result of `decode_features`, and returns uint8 [b, H, W, 3].

    The tiles are smaller for larger batches, so that the memory in use stays the same.
    """
    networks, tile = engine.networks, tile_side(len(features) / len(features.devices()))
    count = features.shape[1:3]
    sides = make_sides(engine.config, [n // networks.subcells for n in count], size, tile)
    out = np.empty((len(features), *size, 3), np.uint8)
    for y in range(0, size[0], sides[0].tile):
        rows = sides[0].lines(y, networks.subcells, 0, count[0])
        for x in range(0, size[1], sides[1].tile):
            cols = sides[1].lines(x, networks.subcells, 0, count[1])
            found = np.asarray(networks.run_tile(engine.params, features, rows, cols, dtype="uint8"))
            height, width = min(sides[0].tile, size[0] - y), min(sides[1].tile, size[1] - x)
            out[:, y : y + height, x : x + width] = found[:, :height, :width]
    return out
