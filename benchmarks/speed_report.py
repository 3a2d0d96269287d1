"""Writes the tables of speed.py."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from common import markdown

from arbiscale_jax.evaluation import speed


class Report:
    """Prints tables a line at a time and appends them to a file, so that what was measured stays if a run is ended.

    Args: output, the file, or None; minutes, after which no row begins.
    """

    def __init__(self, output: Path | None, minutes: float = math.inf):
        self._output, self._end, self._columns = output, time.monotonic() + 60 * minutes, 0
        if output:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text("")

    def say(self, text: str) -> None:
        print(text, flush=True)
        if self._output:
            with self._output.open("a") as file:
                file.write(text + "\n")

    def begin(self, title: str, header: Sequence[str]) -> None:
        """Prints a title and the head of its table; columns for the peaks of memory are added."""
        header = [*header, "host MiB", "device MiB"]
        self._columns = len(header)
        self.say(f"\n{title}\n\n{markdown(header, [])}")

    def row(self, names: Sequence[str], measure: Callable[[], Sequence[float | str]]) -> None:
        """Prints a row: its names, what `measure` returns, and the peaks of memory.

        If there is no time left to begin, or the device has too little memory, the row says so.
        """
        cells = ["no time left"]
        if time.monotonic() < self._end:
            try:
                cells = self._measured(measure)
            except jax.errors.JaxRuntimeError as e:
                if "RESOURCE_EXHAUSTED" not in str(e):
                    raise
                cells = ["out of memory"]
        cells += ["-"] * (self._columns - len(names) - len(cells))
        self.say("| " + " | ".join([*names, *cells]) + " |")

    def _measured(self, measure: Callable[[], Sequence[float | str]]) -> list[str]:
        speed.reset_peak()
        found, device = [*measure()], speed.peak_device()
        found += [speed.peak_host() / 2**20, "-" if device is None else device]
        return [x if isinstance(x, str) else f"{x:.4g}" for x in found]
