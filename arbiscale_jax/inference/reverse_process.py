"""Runs the reverse process of the latents in parts, after each of which a caller is told and may stop."""

import jax

from arbiscale_jax import diffusion

from .engine import Engine
from .given import Given
from .options import Sampling


def denoise(
    engine: Engine, given: Given, options: Sampling, advance: diffusion.Advance | None = None, z_T=None
) -> jax.Array:
    """Samples latents.

    The result is that of Networks.sample, up to rounding, and does not depend on whether a caller is told.

    Args:
      engine: networks and weights.
      given: what sampling is given besides these.
      options: how to sample; with start > 0 it begins at the noised condition.
      advance: a function that is told of evaluations of the U-Net, see diffusion.run_in_parts.
      z_T: the latents [b h w c] to begin with; None means those that `options` ask for.

    Returns:
      z_0, [b h w c].
    """
    networks, noisy = engine.networks, options.eta > 0
    if z_T is None:
        z_T = networks.run_first(given, time=options.first_time(len(networks.alpha_bar)))

    def run(carry, some):
        return networks.run_evaluations(engine.params, carry, some, given, sampler=options.sampler, noisy=noisy)

    constants, carry = options.constants(networks.alpha_bar), diffusion.begin(z_T, options.sampler)
    return diffusion.run_in_parts(run, carry, constants, advance)[0]
