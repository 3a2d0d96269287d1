"""The auto-encoder whose decoder renders at any size: E, D and f_theta as one module (paper Eq. 6)."""

import jax.numpy as jnp
from flax import linen as nn

from .liif import Axis, Liif
from .local import SubcellDecoder

LOG_VAR_RANGE = (-30.0, 20.0)


class FirstStage(nn.Module):
    """Parameters: encoder/, decoder/, liif/. Latents here are unscaled (scale_factor is the diffusion's)."""

    encoder: nn.Module  # x [b H W 3] -> moments; with a field double_z
    decoder: nn.Module  # z [b h w c] -> features on the grid of cells, or of sub-cells
    liif: Liif

    @property
    def subcells(self) -> int:
        """How many cells of features D makes of a latent cell along a side."""
        return self.decoder.factor if isinstance(self.decoder, SubcellDecoder) else 1

    def posterior(self, x):
        """Encodes images [b H W 3] in [-1, 1].

        Returns: mean and log-variance (clipped to [-30, 20]), each [b H/f W/f c]; the latter None without double_z.
        """
        moments = self.encoder(x)
        if not self.encoder.double_z:
            return moments, None
        mean, log_var = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_var, *LOG_VAR_RANGE)

    def features(self, z):
        """D, then the renderer's first layer, per (sub-)cell: z [b h w c] -> [b h' w' d] for `grid`."""
        return self.liif.project(self.decoder(z))

    def grid(self, features, rows: Axis, cols: Axis, *, products: bool = False):
        """Renders a window of `features`; rows of p and cols of q pixels, shared or each example's own -> [b p q 3].

        Args: rows, cols, axes over the features' grid; products, see `liif.select`.
        """
        return self.liif.grid(features, rows, cols, products=products)

    def render(self, z, rows: Axis, cols: Axis):
        """Renders a window of latents z [b h w c]: I(c) = f_theta(D(z), c) (Eq. 6) -> [b p q 3]."""
        return self.liif(self.decoder(z), rows, cols)

    def points(self, z, y: Axis, x: Axis):
        """Renders single pixels of one latent z [h w c] by the definition -> [p 3]."""
        return self.liif.points(self.decoder(z[None])[0], y, x)

    def __call__(self, x, rows: Axis, cols: Axis):
        """Encodes and renders: x [b H W 3] -> [b p q 3]; makes every weight."""
        return self.render(self.posterior(x)[0], rows, cols)
