"""Measures a run's time: seconds of training, which train.minutes limits, and of compilation, which nothing limits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils


class Spent(NamedTuple):
    """Holds the time that a run has used, in seconds."""

    trained: float = 0.0
    compiled: float = 0.0  # older versions counted it as training


NOTHING = Spent()


class Clock:
    """Counts the seconds of training from its creation on; the time that compilation takes is counted separately."""

    def __init__(self, before: Spent = NOTHING):
        """Starts the clock.

        Args:
          before: the time that earlier calls of the run have used.
        """
        self._began, self.compiled = time.monotonic() - before.trained, before.compiled

    @property
    def trained(self) -> float:
        """Returns the seconds of training: updates, waiting for batches, validation and checkpoints."""
        return time.monotonic() - self._began

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Counts the time that passes inside the block as compilation."""
        start = time.monotonic()
        try:
            yield
        finally:
            passed = time.monotonic() - start
            self._began += passed
            self.compiled += passed


def agreed(seconds: float, before: float, step: int, every: int) -> float:
    """Returns a time of training that all processes agree on, so that they stop at the same step.

    It is the first process's time, which is sent to all of them at regular steps.

    Args:
      seconds: the seconds of training that this process has measured.
      before: the time that was last agreed on.
      step: the number of updates done.
      every: the number of steps between two agreements.
    """
    if jax.process_count() == 1:
        return seconds
    return float(multihost_utils.broadcast_one_to_all(np.float32(seconds))) if step % every == 0 else before
