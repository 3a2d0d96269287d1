"""Training: one loop, one step and one checkpoint module for all stages; one loss module a stage."""

from pathlib import Path


def train(config, workdir: Path | str) -> dict:
    """Trains `config.stage` in `workdir`; see `training.loop.train`."""
    from .loop import train as run  # late: reading a checkpoint needs neither the loader nor the progress bar

    return run(config, workdir)
