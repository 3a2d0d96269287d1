"""Run by test_parallel.py: `arbiscale train` on the toy stage of toys.py, which compiles in no time."""

import sys

import numpy as np
from toys import toy_batches, toy_stage

from arbiscale_jax import data
from arbiscale_jax.cli import program, train
from arbiscale_jax.training.stages import STAGES


def local_batches(config, seed, batch_size, start_step=0, rows=None):
    for batch in toy_batches(config, seed, batch_size, start_step):
        yield {name: x[rows] for name, x in batch.items()}


if __name__ == "__main__":
    STAGES["first_stage"] = toy_stage
    data.train_batches = local_batches
    data.val_batch = lambda config: {"image": np.ones((3, 3), np.float32)}
    sys.exit(program.run(train.main))
