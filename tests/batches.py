"""Batches of training data for tests, whose loader is closed."""

from contextlib import closing

import numpy as np

from arbiscale_jax import data


def first_batch(config, seed: int, batch_size: int) -> dict[str, np.ndarray]:
    """Returns batch 0 of config.data, as data.train_batches makes it."""
    with closing(data.train_batches(config, seed, batch_size)) as batches:
        return next(batches)
