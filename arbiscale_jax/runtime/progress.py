"""Shows how far long work is: a run of training on stdout, work of a counted number of steps on stderr."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from arbiscale_jax.runtime.screen import printable

ETA_SECONDS = 600.0  # the time that is left is judged by the speed in this period


class Report(NamedTuple):
    """Holds the functions that take a run's messages."""

    say: Callable[[str], None]  # takes a line that stays on the screen
    show: Callable[[float, str], None]  # takes the share of the work that is done, in [0, 1], and a line about it


@contextmanager
def run_progress(name: str, *, quiet: bool = False) -> Iterator[Report]:
    """Shows progress as a bar on a terminal and as lines elsewhere, and nothing if `quiet`."""
    if quiet:
        yield Report(lambda line: None, lambda share, line: None)
        return
    if not sys.stdout.isatty():

        def say(line):
            try:
                print(line, flush=True)
            except OSError:  # the reader is gone, such as `| tee` after Ctrl-C; the run goes on to its checkpoint
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), sys.stdout.fileno())

        yield Report(say, lambda share, line: say(f"{name} {share:4.0%}  {line}"))
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    state = TextColumn("{task.fields[line]}", markup=False)
    with Progress(TextColumn(name), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), state) as bar:
        task = bar.add_task(name, total=1.0, line="compiling")
        yield Report(
            lambda line: bar.console.print(line, markup=False, highlight=False),
            lambda share, line: bar.update(task, completed=share, line=line),
        )


@contextmanager
def counted_progress(
    total: float | None, description: str = "starting", *, on_terminals: bool = False
) -> Iterator[Callable[..., None]]:
    """Shows a bar on stderr, with the time that is left.

    Args:
      total: the number of steps; None if it is not known yet.
      description: what is being done.
      on_terminals: whether nothing is shown where stderr is no terminal; otherwise the finished bar is printed there.

    Yields:
      A function advance(steps, description=None, total=None) that moves the bar by so many steps, and changes what the
      bar says and how long it is where these are given. What it says may be the name of a file.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    console = Console(stderr=True)
    hidden = on_terminals and not console.is_terminal
    with Progress(*columns, console=console, speed_estimate_period=ETA_SECONDS, disable=hidden) as bar:
        task = bar.add_task(description, total=total)

        def advance(steps: float, description: str | None = None, total: float | None = None) -> None:
            shown = None if description is None else escape(printable(description))  # [...] in a name is no markup
            bar.update(task, advance=steps, description=shown, total=total)

        yield advance
