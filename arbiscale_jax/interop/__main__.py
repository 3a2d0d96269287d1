"""Runs `python -m arbiscale_jax.interop`; see arbiscale_jax/cli/convert.py."""

import sys

from arbiscale_jax.cli import convert, program

if __name__ == "__main__":
    sys.exit(program.run(convert.main))
