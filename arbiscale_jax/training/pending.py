"""Collects the metrics of the steps since the last log, which stay on the devices until they are needed."""

from pathlib import Path

import jax
import numpy as np

from arbiscale_jax.errors import UserError

from .clock import Clock


class Pending:
    """Collects the metrics of steps, and lets at most two steps run at a time.

    Adding a step waits until the previous one has ended, so that the measured time is right and Ctrl-C acts soon.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self._steps: list[tuple[int, dict]] = []
        self._mark = (0.0, 0)  # the time and the step from which the speed is measured
        self._last, self._warm = 0, False

    def add(self, step: int, metrics: dict) -> None:
        """Adds the metrics of step `step`, which was just started."""
        self._steps.append((step, metrics))
        self._last = step
        if not self._warm:  # the first step is slower, so the speed is measured from its end
            jax.block_until_ready(metrics)
            self._warm = True
            self.restart()
        elif len(self._steps) > 1:
            jax.block_until_ready(self._steps[-2][1])  # at most two steps in flight

    def restart(self) -> None:
        """Measures the speed from now on, for example after a validation."""
        self._mark = self._clock.trained, self._last

    def clear(self) -> None:
        """Forgets the collected metrics, for example after they were logged."""
        self._steps = []

    @property
    def steps_per_second(self) -> float:
        """Returns the number of steps per second since the last restart, or 0 if no step was made since."""
        start, step = self._mark
        return round((self._last - step) / (self._clock.trained - start), 4) if self._last > step else 0.0

    def means(self, run_dir: Path, manager) -> dict[str, float]:
        """Fetches the metrics and returns their means over the steps; for learning_rate it returns the last value.

        Raises:
          UserError: if a metric is not finite; the message names the first step where that happened.
        """
        values = jax.device_get([metrics for _, metrics in self._steps])
        for (step, _), metrics in zip(self._steps, values, strict=True):
            if bad := [name for name, value in metrics.items() if not np.isfinite(value)]:
                raise UserError(_not_finite(bad, step, run_dir, manager))
        if not values:
            return {}
        means = {name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]}
        rate = {name: float(value) for name, value in values[-1].items() if name == "learning_rate"}
        return means | rate


def _not_finite(names: list[str], step: int, run_dir: Path, manager) -> str:
    manager.wait_until_finished()
    good = manager.latest_step()
    kept = f"the last good checkpoint is step {good}" if good is not None else "there is no checkpoint yet"
    return (
        f"{' and '.join(names)} stopped being finite at step {step} of {run_dir}; {kept}. "
        "Lower --config.train.learning_rate or --config.train.grad_clip and start again."
    )
