"""From a latent, a photograph or nothing to pictures at any size."""

from .model import Model, output_size
from .render import to_floats, to_integers

__all__ = ["Model", "output_size", "to_floats", "to_integers"]
