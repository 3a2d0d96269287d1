"""Defines what the networks compute as pure functions of weights and arrays, and their compiled programs.

The functions may be used under jit, grad and vmap. Axis letters: b is the batch, H and W are pixels, h and w latent
cells, c channels. A picture may be smaller than its array; a Frame then says where it lies (models/masks.py).
"""

from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from arbiscale_jax import diffusion, models

from .frames import Frame, Seen
from .given import Given, draw_noise, guided
from .options import Sampling
from .tiles import Lines, reduce_lines, to_integers

PRECISIONS = ("highest", "tensorfloat32")  # of products of float32 numbers on accelerators


class Networks:
    """Computes E, the U-Net, D and f_theta of one configuration, as pure functions.

    `params` is {"first_stage": ..., "unet": ..., "scale_factor": 1 / std of the latents}. Latents are multiplied by
    scale_factor. Attributes whose names begin with `run_` are the compiled programs, which all models of one
    configuration share.

    Args:
      config: the `model` part of a configuration, complete.
      dtype: the type in which the networks compute; parameters, norms and the last layers stay float32.
      precision: one of PRECISIONS.
    """

    def __init__(self, config: Mapping, dtype: DTypeLike = jnp.float32, precision: str = "highest"):
        self.config, self.dtype, self.precision = config, jnp.dtype(dtype), precision
        self.alpha_bar = diffusion.make_alpha_bar(**config["schedule"])
        self.factor = models.spatial_factor(config)
        self.first_stage = models.build_first_stage(config, dtype)
        self.unet = models.build_unet(config, dtype)
        self.subcells, self.border = self.first_stage.subcells, int(config["sampling"]["border"])
        self.run_posterior, self.run_condition = jax.jit(self.posterior), jax.jit(self.condition)
        self.run_eps, self.run_refine, self.run_features = map(jax.jit, (self.eps, self.refine, self.features))
        self.run_sample = jax.jit(self.sample, static_argnames="options")
        self.run_first = jax.jit(self.first_latent, static_argnames="time")
        self.run_evaluations = jax.jit(self.evaluations, static_argnames=("sampler", "noisy"))
        self.run_tile = jax.jit(self.tile, static_argnames="dtype")

    @contextmanager
    def _computing(self, inside=None):  # "highest", since TF32 on a GPU errs by more than 1e-4
        with jax.default_matmul_precision(self.precision), models.masked(inside):
            yield

    def _first(self, params, method: str, *args) -> Any:
        return self.first_stage.apply({"params": params["first_stage"]}, *args, method=method)

    def posterior(self, params, x, inside=None):
        """Encodes images x [b H W 3] to the mean and log-variance (or None) of their latents, [b h w c], unscaled."""
        with self._computing(inside):
            return self._first(params, "posterior", x)

    def condition(self, params, lr, frame: Frame | None = None):
        """Encodes low-resolution images for the U-Net (paper 4.3).

        Args:
          params: the weights.
          lr: images [b H W 3] in [-1, 1], zero outside the pictures.
          frame: where the pictures lie, in latent cells.

        Returns:
          The condition c, the mean of E's posterior times scale_factor, [b h w c]; it is zero outside the pictures.
        """
        condition = self.config["condition"]
        cells = [max(1, round(side * condition["upsampling"] / self.factor)) for side in lr.shape[1:3]]
        size = (cells[0] * self.factor, cells[1] * self.factor)
        enlarge = partial(models.interpolate, size=size, method=condition["interpolation"])
        if frame is None:
            return self.posterior(params, enlarge(lr))[0] * params["scale_factor"]
        inside = frame.inside
        known = models.resize_mask(inside, *lr.shape[1:3])[..., None].astype(jnp.float32)
        share = enlarge(known)  # beyond a picture's edge the interpolation has fewer pixels, whose weights sum to 1
        x = models.blank(enlarge(lr) / jnp.where(share > 0, share, 1), models.resize_mask(inside, *size))
        return models.blank(self.posterior(params, x, inside)[0] * params["scale_factor"], inside)

    def eps(self, params, z_t, t, c=None, strength=None, frame: Frame | None = None, label=None):
        """Predicts the noise in z_t.

        Args:
          params: the weights.
          z_t: noisy latents [b h w c], scaled.
          t: their times, [b].
          c: the condition [b h w c], scaled, or None.
          strength: the strength of the input's damage [b], negative where unknown; None for a model that is not told.
          frame: where the pictures lie.
          label: labels [b 1 + n] for a model that knows some; None is nothing.

        Returns:
          The predicted noise [b h w c]; it is zero outside the pictures.
        """
        told = {name: x for name, x in (("strength", strength), ("label", label)) if x is not None}
        inside = None
        z, condition = z_t, c
        if frame is not None:
            inside = frame.padded
            z, condition = (x if x is None else _pick(x, frame.rows, frame.cols) for x in (z, condition))
        with self._computing(inside):
            out = self.unet.apply({"params": params["unet"]}, z, t, condition, **told)
        if models.predicts(self.config) == "z_0":
            out = diffusion.eps_from_z_0(z_t, out, t, self.alpha_bar)
        return out if frame is None else models.blank(out, frame.inside)

    def evaluations(self, params, carry, constants, given: Given, *, sampler: str, noisy: bool):
        """Does some steps of the reverse process, with one evaluation of the U-Net each.

        Args:
          params: the weights.
          carry: what `diffusion.begin`, or this function for the steps before, returns.
          constants: what these steps are told, arrays [n] (diffusion.make_constants).
          given: the condition, the labels and their guidance, the names of cells and the key of DDIM's noise.
          sampler: one of diffusion.SAMPLERS.
          noisy: whether DDIM adds noise.

        Returns:
          The carry after these steps, whose first member is z_t, [b h w c].
        """

        def eps_fn(z_t, t):
            return guided(partial(self.eps, params, z_t, t, given.c, given.strength, given.frame), given, t)

        def draw(step):
            return draw_noise(given, step + 1, carry[0].shape[-1])

        step = diffusion.make_step(eps_fn, sampler, draw if noisy else None)
        return jax.lax.scan(step, carry, constants)[0]

    def sample(self, params, z_T, given: Given, *, options: Sampling):
        """Runs the reverse process as one loop.

        Args:
          params: the weights.
          z_T: the latents [b h w c] at the noisiest of the times that are visited.
          given: as in `evaluations`.
          options: how to sample; `start` is above 0.

        Returns:
          z_0, [b h w c].
        """
        constants, carry = options.constants(self.alpha_bar), diffusion.begin(z_T, options.sampler)
        return self.evaluations(params, carry, constants, given, sampler=options.sampler, noisy=options.eta > 0)[0]

    def first_latent(self, given: Given, *, time: int | None = None):
        """Returns latents [b h w c] from which to sample: noise, or the condition with noise of a time."""
        noise = draw_noise(given, 0, self.config["first_stage"]["z_channels"])
        if time is None:
            return noise
        return diffusion.q_sample(given.c, noise, np.full(len(noise), time), self.alpha_bar)

    def features(self, params, z, inside=None):
        """Applies D and the first layer of f_theta to latents z [b h w c].

        Args:
          params: the weights.
          z: the latents. With `inside` they already have the border that D sees; otherwise it is made by reflection
            and cut off the result.
          inside: [b h w], where the pictures with their borders lie.

        Returns:
          [b h' w' d], for `tile`; h' and w' are the numbers of sub-cells.
        """
        z = z / params["scale_factor"]
        if inside is not None:
            with self._computing(inside):
                return self._first(params, "features", models.blank(z, inside))
        with self._computing():
            found = self._first(params, "features", models.reflect_border(z, self.border))
        return models.cut_border(found, self.border * self.subcells)

    def tile(self, params, features, rows: Lines, cols: Lines, *, dtype: str = "float32"):
        """Renders a window of an image with f_theta.

        Args:
          params: the weights.
          features: what `features` returns.
          rows: where the window's rows lie on the cells of the features.
          cols: the same for its columns.
          dtype: "float32" is about [-1, 1], not clipped; "uint8" and "uint16" are clipped and rounded.

        Returns:
          [b p q 3].
        """
        with self._computing():
            axes = map(self._known, (rows.axis, cols.axis))
            x = reduce_lines(self._first(params, "grid", features, *axes), rows, cols)
        return x if dtype == "float32" else to_integers(x, dtype, xp=jnp)

    def refine(self, params, z, c, frame: Frame | None = None, seen: Seen | None = None):
        """Adds to z what its render lacks of the input: the render is reduced to the input's size and encoded again.

        Args:
          params: the weights.
          z: latents [b h w c], at most one picture in each.
          c: the condition [b h w c].
          frame: where the pictures lie; None means that they fill the arrays.
          seen: how they are rendered, if there is a frame.

        Returns:
          z + c - c', where c' is the condition of the reduced render; it is zero outside the pictures.
        """
        if seen is None:
            features = self.features(params, z)
            y, x = (models.axis(side * self.subcells, side * self.factor) for side in z.shape[1:3])
        else:
            features, y, x = self.features(params, _pick(z, seen.rows, seen.cols), seen.inside), seen.y, seen.x
        with self._computing():
            image = jnp.clip(self._first(params, "grid", features, self._known(y), self._known(x)), -1, 1)
        ratio = self.config["condition"]["upsampling"] / self.factor
        size = [round(side / ratio) for side in z.shape[1:3]]
        reduce = partial(jax.image.resize, method="cubic")
        if frame is None:
            return z + c - self.condition(params, reduce(image, (len(z), *size, 3)))
        inside = models.resize_mask(frame.inside, *image.shape[1:3])
        share = reduce(inside[..., None].astype(jnp.float32), (len(z), *size, 1))
        lr = reduce(models.blank(image, inside), (len(z), *size, 3)) / jnp.where(share > 0, share, 1)
        lr = models.blank(lr, models.resize_mask(frame.inside, *size))
        return models.blank(z + c - self.condition(params, lr, frame), frame.inside)

    def _known(self, axis: models.Axis) -> models.Axis:
        """Returns an axis with a pixel size that f_theta was trained on."""
        low, high = (self.config["sampling"][name] or None for name in ("cell_min", "cell_max"))
        return axis if low is high is None else axis._replace(cell=jnp.clip(axis.cell, low, high))


def _pick(x, rows, cols):
    """Returns x [b h w c] with the rows [b h'] and columns [b w'] that are named for each example."""
    if rows is None:
        return x
    x = jnp.take_along_axis(x, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(x, cols[:, None, :, None], axis=2)
