"""Runs trained models: it turns a photograph, a latent or nothing into pictures of any size."""

from .loading import load
from .model import Model, output_size
from .render import to_floats, to_integers

__all__ = ["Model", "load", "output_size", "to_floats", "to_integers"]
