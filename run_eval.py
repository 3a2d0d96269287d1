"""Measures models and interpolations; see --help."""

import functools
import sys

from arbiscale_jax.cli import evaluate, program

if __name__ == "__main__":
    sys.exit(program.run(functools.partial(evaluate.main, prog="python run_eval.py")))
