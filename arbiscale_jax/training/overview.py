"""Describes a run before its first step (parameters and FLOPs), and traces where the time of its steps goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from clu.parameter_overview import get_parameter_overview

from arbiscale_jax.artifacts.storage import flatten
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import write_text

OVERVIEW, PROFILE = "overview.txt", "profile"


def describe(params, frozen, compiled, devices: int) -> str:
    """Lists, one per line, the networks with their numbers of parameters, and the FLOPs per step."""
    rows = {}
    for tree, fate in ((frozen, "frozen"), (params, "trained")):
        for key, value in flatten(tree).items():
            part = "/".join(key.split("/")[: 2 if key.startswith("first_stage/") else 1])
            if part != "scale_factor":
                rows[part, fate] = rows.get((part, fate), 0) + value.size
    width = max(len(part) for part, _ in rows)
    lines = [f"{part:{width}}  {size:>13,} parameters, {fate}" for (part, fate), size in sorted(rows.items())]
    return "\n".join([*lines, _flops_line(compiled, devices)])


def write_overview(run_dir: Path, text: str, params, frozen) -> None:
    """Writes overview.txt: the text that `describe` made, then the name, shape and size of every array."""
    tables = (
        f"{title}:\n{get_parameter_overview(tree, include_stats=False)}"
        for title, tree in (("Trained", params), ("Frozen", frozen))
        if tree
    )
    write_text(run_dir / OVERVIEW, "\n\n".join([text, *tables]) + "\n")


def flops(compiled) -> float | None:
    """Returns XLA's count of FLOPs for one run of a compiled program on one device, or None if the backend has none.

    The body of a loop (scan or map) is counted once, however often it runs.
    """
    return (compiled.cost_analysis() or {}).get("flops")


def _flops_line(compiled, devices: int) -> str:
    number = flops(compiled)
    if number is None:
        return "This backend does not count the FLOPs per step."
    each = f" on each of {devices} devices" if devices > 1 else ""
    return f"{number / 1e9:,.3f} GFLOP per step{each} (XLA's count; the body of a loop counts once)"


def check_profile(first: int, num: int) -> None:
    """Raises UserError if the steps to trace make no sense."""
    if first < 1 or num < 0:
        raise UserError(f"train.profile_start >= 1 and train.profile_steps >= 0 must hold, got {first} and {num}.")


@contextmanager
def tracer(run_dir: Path, first: int, num: int) -> Iterator[Callable]:
    """Traces `num` steps from step `first` on into the folder RUN/profile, which TensorBoard shows.

    Args:
      run_dir: the directory of the run.
      first: the first step to trace, counted from 1 as in the metrics.
      num: the number of steps to trace, or 0 for none.

    Yields:
      A function on_step(step, before) to call ahead of each step, where `before` is the result of the previous step. It
        waits for `before` where the trace begins and ends, so that the trace holds exactly these steps.
    """
    tracing = False

    def on_step(step: int, before) -> None:
        nonlocal tracing
        if tracing and step == first + num:
            jax.block_until_ready(before)
            jax.profiler.stop_trace()
            tracing = False
        elif num > 0 and step == first:
            jax.block_until_ready(before)
            jax.profiler.start_trace(run_dir / PROFILE)
            tracing = True

    try:
        yield on_step
    finally:
        if tracing:
            jax.profiler.stop_trace()
