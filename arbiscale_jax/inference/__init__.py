"""Runs trained models: it turns a photograph, a latent or nothing into pictures of any size."""

from .baseline_model import Baseline, resolve_baseline
from .checks import output_size
from .compiled import get_networks
from .loading import load
from .model import Model
from .networks import Networks
from .sheets import to_floats
from .tiles import to_integers

__all__ = [
    "Baseline",
    "Model",
    "Networks",
    "get_networks",
    "load",
    "output_size",
    "resolve_baseline",
    "to_floats",
    "to_integers",
]
