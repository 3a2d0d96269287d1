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
    networks, sampler, eta = engine.networks, options.sampler, options.eta
    constants = diffusion.make_constants(
        networks.alpha_bar, steps=options.steps, sampler=sampler, start=options.start or 1.0, eta=eta
    )
    if z_T is None:
        z_T = networks.run_first(given, time=first_time(engine, options))

    def run(carry, some):
        return networks.run_evaluations(engine.params, carry, some, given, sampler=sampler, noisy=eta > 0)

    return diffusion.run_in_parts(run, diffusion.begin(z_T, sampler), constants, advance)[0]


def first_time(engine: Engine, options: Sampling) -> int | None:
    """Returns the time at which sampling begins at the noised condition, or None if it begins with noise."""
    if not options.start:
        return None
    return diffusion.first_time(options.steps, len(engine.networks.alpha_bar), options.start, options.sampler)
