"""Runs the `arbiscale` command, which calls its subcommands."""

import sys
from collections.abc import Sequence
from importlib import import_module

from arbiscale_jax.cli import program
from arbiscale_jax.errors import UserError

_COMMANDS = {  # {name: (module of arbiscale_jax.cli, what the command does)}
    "quickstart": ("run_quickstart", "train small super-resolution stages and upscale a photograph they never saw"),
    "prepare": ("prepare_data", "resize folders of images once, for fast training"),
    "train": ("train", "train one stage of a model"),
    "upscale": ("sample", "enlarge images by any factor"),
    "generate": ("sample", "generate images of any size"),
    "eval": ("evaluate", "measure models and interpolations: PSNR, LPIPS, FID, SelfSSIM, speed, ..."),
    "export": ("export", "turn a training run into an exported model"),
    "convert": ("convert", "turn a PyTorch checkpoint into an exported model, and back"),
    "serve": ("serve", "serve a page to upscale, generate and zoom, and an HTTP API"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the console script and exits with the command's exit code."""
    sys.exit(program.run(dispatch, argv))


def dispatch(argv: list[str]) -> int | None:
    """Runs the subcommand that argv names, and returns its exit code, or None for 0."""
    if not argv or program.wants_help(argv[:1]):
        print("Arbitrary-scale image generation and super-resolution.\n\nUsage: arbiscale COMMAND [--flag=value ...]\n")
        print("\n".join(f"  {name:11}{text}" for name, (_, text) in _COMMANDS.items()))
        print("\n'arbiscale COMMAND --help' explains a command, 'arbiscale --version' prints the version.")
        return None
    name, rest = argv[0], argv[1:]
    if name not in _COMMANDS:
        hint = program.closest(name, list(_COMMANDS))
        raise UserError(f"There is no command {name!r}{hint}; the commands are {', '.join(_COMMANDS)}.")
    command = import_module(f"arbiscale_jax.cli.{_COMMANDS[name][0]}")
    options = {"task": name} if name in ("upscale", "generate") else {}
    return command.main(rest, prog=f"arbiscale {name}", **options)
