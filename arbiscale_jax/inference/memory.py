"""Finds out how much memory there is, and what the networks need per pixel."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import jax

from arbiscale_jax import models

SHARE = 0.4  # share of the free memory that the activations of one window may take
FALLBACK = 4 * 2**30  # bytes that are counted as free where nothing can be found out
LASTING = 8 * 2**30  # bytes for which D's features are planned at most
CONTROL_GROUP = Path("/sys/fs/cgroup")
STEP = 32  # sides of windows are multiples of this many input pixels
LEAST, MOST = 128, 1024  # input pixels: least and largest side of a window; larger ones would save little overlap


def physical_memory() -> int:
    """Returns the size of the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory() -> int:
    """Returns how many bytes are free: on the device if it has its own memory, otherwise on the host.

    On the host it is the least of what the system calls available and what the process's control group leaves.
    """
    found = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in found:
        return found["bytes_limit"] - found.get("bytes_in_use", 0)
    values = [_available(), left_by_group(CONTROL_GROUP)]
    return max(0, min((value for value in values if value is not None), default=FALLBACK))


def lasting_memory() -> int:
    """Returns how many bytes D's features are planned for: a half of all memory, whoever uses it, and at most LASTING.

    It stays the same while a machine runs, so that a window of a render is divided like the whole image.
    """
    whole = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if whole is None:
        whole = min(physical_memory(), _number(CONTROL_GROUP / "memory.max") or physical_memory())
    return min(LASTING, whole // 2)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def left_by_group(folder: Path) -> int | None:
    """Returns the bytes that a control group leaves, or None if there is no group or no limit.

    The group counts the cache of files as used; what the system gives up first when memory is asked for is free.
    """
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, StopIteration, ValueError):
        cached = 0
    return limit - max(0, used - cached)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no control group, or "max", which means no limit
        return None


def sampling_bytes(config: Mapping) -> int:
    """Estimates the bytes of activations per input pixel of E and the U-Net; the argument is complete."""
    first, upsampling = config["first_stage"], config["condition"]["upsampling"]
    cells = (upsampling / models.spatial_factor(config)) ** 2
    of_unet = 8 * 4 * config["unet"]["model_channels"] * cells  # the U-Net also keeps its skip connections
    if first["architecture"] == "linear_code":
        return round(max(of_unet, 4 * 4 * 3 * upsampling**2))  # the second is the image that E sees
    return round(max(4 * 4 * first["ch"] * upsampling**2, of_unet))  # four float32 arrays of E's widest level


def decoding_bytes(config: Mapping) -> int:
    """Estimates the bytes of activations per latent cell of D and of f_theta's first layer."""
    first = config["first_stage"]
    if models.has_subcells(config):
        return 5 * 4 * first["subcell"]["features"] * models.spatial_factor(config) ** 2
    return 4 * 4 * (first["decoder_ch"] or first["ch"]) * max(first["ch_mult"])


def largest_side(num_bytes: int, free: int | None = None, *, most: int = MOST) -> int:
    """Returns the largest side of a square window whose places take num_bytes each.

    Args:
      num_bytes: the bytes of activations per place.
      free: the bytes that are free; by default they are measured.
      most: the side that is enough in any case.
    """
    budget = SHARE * (free_memory() if free is None else free)
    return min(most, max(LEAST, int(math.sqrt(budget / num_bytes)) // STEP * STEP))
