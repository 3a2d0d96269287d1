"""Imports the benchmarks, scripts in a folder of their own that import each other."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def module(name: str) -> ModuleType:
    """Returns a benchmark by its name."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
