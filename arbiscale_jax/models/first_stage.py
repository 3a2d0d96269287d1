"""Defines the auto-encoder whose decoder renders at any size: E, D and f_theta in one module (paper Eq. 6)."""

import jax.numpy as jnp
from flax import linen as nn

from .liif import Axis, Liif
from .local import SubcellDecoder

LOG_VAR_RANGE = (-30.0, 20.0)  # log-variances are clipped to this range


class FirstStage(nn.Module):
    """Encodes images to latents, and renders latents at any coordinates.

    The parameters are in encoder/, decoder/ and liif/. Latents are not scaled here; scale_factor belongs to the
    diffusion.
    """

    encoder: nn.Module  # E: image [b H W 3] -> mean, or with its field double_z mean and log-variance
    decoder: nn.Module  # D: latent [b h w c] -> features on the grid of latent cells or of sub-cells
    liif: Liif  # f_theta: features and coordinates -> RGB

    @property
    def subcells(self) -> int:
        """Returns how many cells of features D makes of each latent cell, along a side."""
        return self.decoder.factor if isinstance(self.decoder, SubcellDecoder) else 1

    def posterior(self, x):
        """Encodes images.

        Args:
          x: [b H W 3] in [-1, 1].

        Returns:
          The mean and the log-variance of the latent, each [b H/f W/f c]; the log-variance is clipped to [-30, 20], and
          it is None without double_z.
        """
        moments = self.encoder(x)
        if not self.encoder.double_z:
            return moments, None
        mean, log_var = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_var, *LOG_VAR_RANGE)

    def features(self, z):
        """Applies D and the first layer of the renderer to latents [b h w c] -> features [b h' w' d] for `grid`."""
        return self.liif.project(self.decoder(z))

    def grid(self, features, rows: Axis, cols: Axis, *, products: bool = False):
        """Renders a window of p x q pixels.

        Args:
          features: what `features` returns, [b h' w' d].
          rows: Axis of p pixels over the grid of the features, for all examples or with a leading batch axis.
          cols: the same for q pixels along the other side.
          products: see `liif.select`.

        Returns:
          [b p q 3], about [-1, 1].
        """
        return self.liif.grid(features, rows, cols, products=products)

    def render(self, z, rows: Axis, cols: Axis):
        """Renders a window of latents z [b h w c] as I(c) = f_theta(D(z), c) (paper Eq. 6) -> [b p q 3]."""
        return self.liif(self.decoder(z), rows, cols)

    def points(self, z, y: Axis, x: Axis):
        """Renders p single pixels of one latent z [h w c] by `Liif.query`, the definition -> [p 3]."""
        return self.liif.points(self.decoder(z[None])[0], y, x)

    def __call__(self, x, rows: Axis, cols: Axis):
        """Encodes and renders images x [b H W 3] -> [b p q 3]; its init makes every parameter."""
        return self.render(self.posterior(x)[0], rows, cols)
