"""Generates and enlarges images at any size, with latent diffusion and an implicit neural decoder, in JAX.

    import arbiscale_jax as aj
    model = aj.load("photos")
    picture = model.upscale(image, scale=3.7)

The method is that of Kim & Kim, "Arbitrary-Scale Image Generation and Upsampling using Latent Diffusion Model and
Implicit Neural Decoder", CVPR 2024. Equation and section numbers in docstrings refer to that paper.
"""

from typing import TYPE_CHECKING

from arbiscale_jax.errors import UserError

if TYPE_CHECKING:
    from arbiscale_jax import interop
    from arbiscale_jax.artifacts.registry import export
    from arbiscale_jax.artifacts.storage import bundled_models
    from arbiscale_jax.images import read, save
    from arbiscale_jax.inference import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "UserError", "bundled_models", "export", "interop", "load", "read", "save"]


_LATE = {  # a public name, and the module of this package that defines it; None if the name is itself a module
    "Model": "inference",
    "bundled_models": "artifacts.storage",
    "export": "artifacts.registry",
    "interop": None,
    "load": "inference",
    "read": "images",
    "save": "images",
}


def __getattr__(name: str):
    """Imports the parts that need JAX or Orbax when they are first used, so that a command line starts fast."""
    from importlib import import_module

    if name not in _LATE:
        raise AttributeError(f"module 'arbiscale_jax' has no attribute {name!r}")
    module = _LATE[name]
    if module is None:
        return import_module(f"arbiscale_jax.{name}")
    return getattr(import_module(f"arbiscale_jax.{module}"), name)


def __dir__() -> list[str]:
    """Lists the names that are imported late too, so that `dir` and editors show them."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
