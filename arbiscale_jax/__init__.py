"""Arbitrary-scale image generation and super-resolution with latent diffusion and an implicit neural decoder, in JAX.

    import arbiscale_jax as aj
    model = aj.load("photos")
    picture = model.upscale(image, scale=3.7)

After Kim & Kim, "Arbitrary-Scale Image Generation and Upsampling using Latent Diffusion Model and Implicit Neural
Decoder", CVPR 2024; equation and section numbers in docstrings are that paper's.
"""

from typing import TYPE_CHECKING

from arbiscale_jax.errors import UserError

if TYPE_CHECKING:
    from arbiscale_jax import interop
    from arbiscale_jax.inference import Model
    from arbiscale_jax.registry import export, load
    from arbiscale_jax.storage import bundled_models

__version__ = "0.1.0"
__all__ = ["Model", "UserError", "bundled_models", "export", "interop", "load"]


def __getattr__(name: str):
    """Loads the heavy parts (JAX, Orbax) when they are first used, so that a command line starts fast."""
    from importlib import import_module

    if name == "bundled_models":
        return import_module("arbiscale_jax.storage").bundled_models
    if name in ("load", "export"):
        return getattr(import_module("arbiscale_jax.registry"), name)
    if name == "Model":
        return import_module("arbiscale_jax.inference").Model
    if name == "interop":
        return import_module("arbiscale_jax.interop")
    raise AttributeError(f"module 'arbiscale_jax' has no attribute {name!r}")
