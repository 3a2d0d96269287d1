"""Defines what stays the same from the start of a run to its end."""

from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from arbiscale_jax.runtime.progress import Report

from .optimizer import Optimizer
from .stages.stage import Stage


class Run(NamedTuple):
    """Holds the parts of a run; none of them changes while it trains."""

    config: ConfigDict  # the whole configuration
    workdir: Path  # the directory of the run's files
    stage: Stage  # what is trained, with which loss
    mesh: Mesh  # all devices
    optimizer: Optimizer  # how the weights are updated
    report: Report  # where messages go

    @property
    def is_main(self) -> bool:
        """Tells whether this process, the first of all hosts, writes the run's files."""
        return jax.process_index() == 0
