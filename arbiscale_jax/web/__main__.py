"""Runs `python -m arbiscale_jax.web`, which is `arbiscale serve`."""

import sys
from functools import partial

from arbiscale_jax.cli import program, serve

if __name__ == "__main__":
    sys.exit(program.run(partial(serve.main, prog="python -m arbiscale_jax.web")))
