"""What a run is before its first step, and where its steps' time goes: parameters, FLOPs, a profiler's trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from clu.parameter_overview import get_parameter_overview

from arbiscale_jax.errors import UserError
from arbiscale_jax.storage import flatten
from arbiscale_jax.whole_files import write_text

OVERVIEW, PROFILE = "overview.txt", "profile"


def describe(params, frozen, compiled, devices: int) -> str:
    """Lists the networks with their numbers of parameters, and the FLOPs of a step, a line each."""
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
    """Writes overview.txt: `text` of `describe`, then every array's name, shape and size."""
    tables = (
        f"{title}:\n{get_parameter_overview(tree, include_stats=False)}"
        for title, tree in (("Trained", params), ("Frozen", frozen))
        if tree
    )
    write_text(run_dir / OVERVIEW, "\n\n".join([text, *tables]) + "\n")


def flops(compiled) -> float | None:
    """Returns XLA's count for one run of a compiled program on one device, None where the backend has none.

    The body of a loop (scan, map) counts once, however often it runs.
    """
    return (compiled.cost_analysis() or {}).get("flops")


def _flops_line(compiled, devices: int) -> str:
    number = flops(compiled)
    if number is None:
        return "FLOPs of a step: this backend does not count them"
    each = f" on each of {devices} devices" if devices > 1 else ""
    return f"{number / 1e9:,.3f} GFLOP a step{each} (XLA's count; the body of a loop counts once)"


def check_profile(first: int, num: int) -> None:
    """Raises: UserError if these are no steps to trace."""
    if first < 1 or num < 0:
        raise UserError(f"train.profile_start >= 1 and train.profile_steps >= 0 must hold, got {first} and {num}.")


@contextmanager
def tracer(run_dir: Path, first: int, num: int) -> Iterator[Callable]:
    """Traces the steps first .. first + num - 1, counted from 1 as in the metrics, into RUN/profile (TensorBoard's).

    Yields: on_step(step, before), to be called ahead of each step; `before`, what the previous step returned, is waited
      for where the trace begins and ends, so that it holds these steps whole and no other.
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
