"""Computes losses on a render besides those on its pixels: coarse colours, spectrum and LPIPS."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arbiscale_jax.runtime.random import fold_name

from . import image_losses
from . import stage as s


class Appearance(NamedTuple):
    """Holds these losses for one stage, with their weights."""

    weights: dict[str, float]  # the weights of coarse, spectrum and lpips that are not 0
    terms: Callable  # (LPIPS networks, x_hat, x [b p p 3], key) -> {name: [b]}

    def total(self, terms: dict):
        """Returns the weighted sum of the terms, [b], or 0.0 if there are none."""
        return sum((weight * terms[name] for name, weight in self.weights.items()), start=0.0)


def make_appearance(config, lpips_weight: float) -> Appearance:
    """Builds the losses that the configuration's `loss` part asks for.

    LPIPS sees the pictures shifted by up to loss.lpips_shift pixels and transposed half of the time, so that the grid
    of its pooling layers has no fixed place on the grid of latent cells.

    Args:
      config: the whole configuration.
      lpips_weight: the weight of LPIPS in this stage.

    Returns:
      The losses.

    Raises:
      UserError: if a weight or shift is negative, or the rendered windows are too small for the spectrum loss.
    """
    loss = config.loss
    names = ("coarse_weight", "spectrum_weight", "lpips_shift")
    s.check_least(config, {f"loss.{name}": 0 for name in names})
    if loss.spectrum_weight:
        image_losses.check_window(s.smallest_window(config))
    weights = {"coarse": loss.coarse_weight, "spectrum": loss.spectrum_weight, "lpips": lpips_weight}
    weights = {name: weight for name, weight in weights.items() if weight}
    dtype, shift = s.compute_dtype(config), loss.lpips_shift

    def perceptual(nets, x_hat, x, key):
        if shift:
            x_hat, x = (_shifted(image, key, shift) for image in (x_hat, x))
        return s.perceptual_loss(nets, x_hat, x, dtype)

    def terms(nets, x_hat, x, key):
        found = {}
        if "coarse" in weights:
            found["coarse"] = image_losses.coarse_l1(x_hat, x)
        if "spectrum" in weights:
            found["spectrum"] = image_losses.spectrum_loss(x_hat, x)
        if "lpips" in weights:
            found["lpips"] = perceptual(nets, x_hat, x, key)
        return found

    return Appearance(weights, terms)


def _shifted(x, key, shift: int):
    """Cuts a window [b q q c] of x [b p p c], at one place for the whole batch, and transposes it half of the time."""
    b, p, _, c = x.shape
    top, left = jax.random.randint(fold_name(key, "place"), (2,), 0, shift + 1)
    x = jax.lax.dynamic_slice(x, (0, top, left, 0), (b, p - shift, p - shift, c))
    return jnp.where(jax.random.bernoulli(fold_name(key, "turn")), x.transpose(0, 2, 1, 3), x)
