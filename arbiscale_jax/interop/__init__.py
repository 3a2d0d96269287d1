"""Other people's checkpoints."""

from .arch import model_config
from .torch_checkpoint import load_torch

__all__ = ["load_torch", "model_config"]
