"""Trains small super-resolution stages and upscales a held-out photograph; see --help."""

import functools
import sys

from arbiscale_jax.cli import program, run_quickstart

if __name__ == "__main__":
    sys.exit(program.run(functools.partial(run_quickstart.main, prog="python run_quickstart.py")))
