"""Trains the stages of a model, with one loop and one training step for all and one loss for each."""

from pathlib import Path


def train(config, workdir: Path | str) -> dict:
    """Trains the stage `config.stage` in the directory `workdir`; see `training.loop.train`."""
    from .loop import train as run  # imported late, since reading a checkpoint does not need it

    return run(config, workdir)
