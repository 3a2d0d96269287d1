"""Measures how long the parts of a model take, and how much memory they need."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from arbiscale_jax.inference import Model, batch, to_floats

REPEATS = 3
PARTS = ("encode", "sample", "decode", "render")  # E on the condition; diffusion with its corrections; D; f_theta
_MIB = 2**20


def measure_model(model: Model, lr: np.ndarray | None, sizes: Sequence[tuple[int, int]], **sampling) -> list[dict]:
    """Times one image at each size, without compilation; a time is the median of REPEATS runs, in seconds.

    Args:
      model: the model.
      lr: an image uint8 [h, w, 3] to upscale, or None to generate.
      sizes: the sizes of the output.
      **sampling: options of Model.upscale_latent or Model.generate_latent.

    Returns:
      One dict per size with the PARTS, total, fps = 1 / total, peak_host_mib and peak_device_mib (None if the device
        does not report it). The host's peak is the process's largest resident set during the measurement, if Linux
        reports it.
    """
    rows = []
    for size in sizes:
        reset_peak()
        seconds, latent = {}, None
        if lr is not None:
            _, seconds["encode"] = _timed(lambda: model.condition(to_floats(lr)[None]))
            latent, both = _timed(lambda: model.upscale_latent(lr, **sampling))
            seconds["sample"] = max(both - seconds["encode"], 0.0)
        else:
            latent, seconds["sample"] = _timed(lambda: model.generate_latent(1, **sampling))
        features, seconds["decode"] = _timed(partial(batch.decode_features, model.engine, latent))
        _, seconds["render"] = _timed(partial(batch.render_features, model.engine, features, size))
        rows.append(_row(seconds, size))
    return rows


def measure_call(call: Callable[[], np.ndarray], size: tuple[int, int]) -> dict:
    """Times a method that has no parts, such as an interpolation, and returns a row like those of `measure_model`."""
    reset_peak()
    return _row({"render": _timed(call)[1]}, size)


def _timed(call: Callable):
    """Returns the result and the median time of a few calls, after one that compiles."""
    out, times = jax.block_until_ready(call()), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        out = jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return out, statistics.median(times)


def _row(seconds: dict[str, float], size) -> dict:
    total = sum(seconds.values())
    parts = {part: seconds.get(part) for part in PARTS}
    row = {"size": f"{size[0]}x{size[1]}", **parts, "total": total, "fps": 1 / total}
    return row | {"peak_host_mib": peak_host() / _MIB, "peak_device_mib": peak_device()}


def reset_peak() -> None:
    """Resets the measurement of the largest resident set, if the system allows it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_host() -> int:
    """Returns the process's largest resident set in bytes, since `reset_peak` or the process's start."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_device() -> float | None:
    """Returns the largest memory in use on one device since the process's start, in MiB, or None on a CPU."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] / _MIB for found in stats if "peak_bytes_in_use" in found]
    return max(peaks, default=None)
