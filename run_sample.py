"""Upscales or generates images; see --help."""

import functools
import sys

from arbiscale_jax.cli import program, sample

if __name__ == "__main__":
    sys.exit(program.run(functools.partial(sample.main, prog="python run_sample.py")))
