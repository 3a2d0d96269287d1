"""Trains one stage of a model; see --help."""

import functools
import sys

from arbiscale_jax.cli import program, train

if __name__ == "__main__":
    sys.exit(program.run(functools.partial(train.main, prog="python run_train.py")))
