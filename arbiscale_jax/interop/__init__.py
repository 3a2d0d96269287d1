"""Other people's checkpoints, both ways."""

from .arch import model_config, read_arch
from .export_torch import save_torch, state_dict
from .published import published
from .torch_checkpoint import load_torch, read_checkpoint

__all__ = ["load_torch", "model_config", "published", "read_arch", "read_checkpoint", "save_torch", "state_dict"]
