"""Keeps compiled programs on disk, so that a program is compiled once per machine and not once per process."""

import os
import sys
from pathlib import Path

import jax


def enable() -> None:
    """Turns on JAX's compilation cache on disk, unless it is on already.

    It lies in the folder ARBISCALE_CACHE, by default ~/.cache/arbiscale_jax. ARBISCALE_CACHE='' turns it off, and JAX's
    own JAX_COMPILATION_CACHE_DIR takes precedence.
    """
    folder = os.environ.get("ARBISCALE_CACHE", str(Path.home() / ".cache" / "arbiscale_jax"))
    if not folder or "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as e:
        print(
            f"There is no compilation cache, since {folder} cannot be created ({e.strerror}); set ARBISCALE_CACHE to "
            "another folder.",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
