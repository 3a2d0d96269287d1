"""Other people's checkpoints, both ways."""

from typing import TYPE_CHECKING

from .arch import model_config, read_arch
from .published import published

if TYPE_CHECKING:
    from .export_torch import save_torch, state_dict
    from .torch_checkpoint import load_torch, read_checkpoint

__all__ = ["load_torch", "model_config", "published", "read_arch", "read_checkpoint", "save_torch", "state_dict"]
_MODULES = {name: "torch_checkpoint" for name in ("load_torch", "read_checkpoint")}
_MODULES |= {name: "export_torch" for name in ("save_torch", "state_dict")}


def __getattr__(name: str):
    """Loads what needs JAX when it is first used: configurations ask for the published architectures alone."""
    from importlib import import_module

    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
