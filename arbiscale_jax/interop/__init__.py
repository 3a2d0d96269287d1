"""Reads checkpoints of the reference implementation and of CompVis models, and writes models as such checkpoints."""

from typing import TYPE_CHECKING

from arbiscale_jax.experiments.arch import model_config
from arbiscale_jax.experiments.arch_files import read_arch
from arbiscale_jax.experiments.published import published

if TYPE_CHECKING:
    from .baseline_checkpoint import load_baseline
    from .export_torch import save_torch, state_dict
    from .torch_checkpoint import load_torch, read_checkpoint

__all__ = [
    "load_baseline",
    "load_torch",
    "model_config",
    "published",
    "read_arch",
    "read_checkpoint",
    "save_torch",
    "state_dict",
]
_MODULES = {name: "torch_checkpoint" for name in ("load_torch", "read_checkpoint")}
_MODULES |= {"load_baseline": "baseline_checkpoint"}
_MODULES |= {name: "export_torch" for name in ("save_torch", "state_dict")}


def __getattr__(name: str):
    """Imports what needs JAX when it is first used, since configurations need the published architectures alone."""
    from importlib import import_module

    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the names that are imported late too, so that `dir` and editors show them."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
