"""Defines what a model does with latents: it encodes, denoises, samples, decodes and renders them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from arbiscale_jax import diffusion, models
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import seed_key

from .checks import check_box, check_images, check_latent_shapes, check_latents, check_memory, check_size
from .engine import Engine, make_engine
from .given import Given, guidance_of
from .options import SampleOptions, check_names, resolve
from .prompts import Request, check_prompt, labels_for
from .rendering import Renderer, View
from .sheets import cell_names
from .tiles import fill


class LatentModel:
    """Holds the encoder, the U-Net and the implicit neural decoder with their weights.

    Latents are float32 [b, h, w, c] multiplied by scale_factor. Images are float32 [b, H, W, 3] in [-1, 1] unless a
    docstring says uint8.

    Args:
      config: the `model` part of a configuration.
      params: {"first_stage": ..., "unet": ...}, trees of float32 weights; an auto-encoder alone has no "unet".
      scale_factor: 1 / std of the latents.
      dtype: the type in which the networks compute: float32, bfloat16, or "tensorfloat32", which is float32 with faster
        products on GPUs.
      tile: the side, in pixels, of the squares that are rendered at once; by default it depends on the device.
      name: the name that `repr` shows.
    """

    def __init__(
        self,
        config: Mapping,
        params: Mapping,
        scale_factor: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        tile: int | None = None,
        name: str = "",
    ):
        self.name, self.config = name, models.complete(config)
        self.params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), dict(params))
        self.scale_factor, self.tile, self._type = float(scale_factor), tile, dtype
        self.dtype = jnp.dtype("float32" if dtype == "tensorfloat32" else dtype)
        self.alpha_bar, self.factor = diffusion.make_alpha_bar(**config["schedule"]), models.spatial_factor(config)

    @cached_property
    def engine(self) -> Engine:
        """Returns the compiled networks together with the weights."""
        return make_engine(self.config, self.params, self.scale_factor, self._type, self.tile)

    def __repr__(self) -> str:
        """Describes the model in one line."""
        condition, side = self.config["condition"], self.config["sampling"]["size"]
        if "unet" not in self.params:
            task = "auto-encoder"
        elif condition["enabled"]:
            task = f"super-resolution by any factor, trained for x{condition['upsampling']:g}"
        else:
            task = f"generation at any size, trained for {side} x {side}"
        count = sum(x.size for x in jax.tree.leaves(self.params))
        return f"<Model {self.name or 'without a name'}: {task}, {count:,} parameters, {self.dtype.name}>"

    def posterior(self, x: ArrayLike) -> tuple[jax.Array, jax.Array | None]:
        """Encodes images to the mean and log-variance of their latents, which are not multiplied by scale_factor.

        Args:
          x: images [b H W 3] in [-1, 1].

        Returns:
          The mean, [b H/f W/f c].
          The log-variance, [b H/f W/f c], or None without double_z.

        Raises:
          UserError: if the images have another shape, or the model has no encoder.
        """
        x = check_images(x, self.factor)
        return self.engine.networks.run_posterior(self.engine.first_stage("encoder"), x)

    def encode(self, x: ArrayLike) -> jax.Array:
        """Encodes images [b H W 3] to the latent that diffusion sees, the posterior mean times scale_factor.

        The latents are [b H/f W/f c]; errors are those of `posterior`.
        """
        return self.posterior(x)[0] * self.scale_factor

    def condition(self, lr: ArrayLike) -> jax.Array:
        """Encodes low-resolution images for the U-Net (paper 4.3).

        The images are enlarged by the ratio of the training sizes, so that E brings them to the grid of the latent.

        Args:
          lr: images [b h w 3] in [-1, 1].

        Returns:
          The condition c, [b h' w' c].

        Raises:
          UserError: if the images have another shape, or the model is unconditional, or has no encoder.
        """
        self.engine.need_condition()
        return self.engine.networks.run_condition(self.engine.first_stage("encoder"), check_images(lr))

    def denoise(
        self,
        z_t: ArrayLike,
        t: ArrayLike,
        c: ArrayLike | None = None,
        restore: float | None = None,
        prompt: str | Sequence[str] | None = None,
    ) -> jax.Array:
        """Predicts the noise in z_t.

        Args:
          z_t: noisy latents [b h w c].
          t: their times, an int or integers [b].
          c: the condition [b h w c], for a model that has one.
          restore: as in `Model.upscale_latent`.
          prompt: what z_t shows, for a model that knows labels: one prompt, or one for each example; None is no label.

        Returns:
          The predicted noise, [b h w c].

        Raises:
          UserError: if the model has no U-Net, or z_t, the condition, `restore` or the prompt does not suit it.
        """
        options = resolve(self.config, {"restore": restore})
        z_t = jnp.asarray(z_t, jnp.float32)
        t = jnp.broadcast_to(jnp.asarray(t), z_t.shape[:1])
        params = self.engine.unet(conditioned=c is not None)
        check_latent_shapes(self.config["first_stage"]["z_channels"], z_t, c)
        strength, label = self.engine.strength(options.restore, len(z_t)), self._labels(prompt, options, len(z_t))
        return self.engine.networks.run_eps(params, z_t, t, c, strength, label=label)

    def sample(self, z_T: ArrayLike, c: ArrayLike | None = None, **sampling: Unpack[SampleOptions]) -> jax.Array:
        """Runs the reverse process from z_T to z_0, as one compiled loop.

        Args:
          z_T: latents [b h w c] to start from, at the noisiest of the times that are visited.
          c: the condition [b h w c], for a model that has one.
          **sampling: steps, sampler, eta, start, seed, prompt, guidance and guidance_interval (SampleOptions).

        Returns:
          The latents z_0, [b h w c].

        Raises:
          UserError: if steps is outside 1 .. start T, the sampler is unknown, another option is out of range, the
            latents or the condition have another shape, or the model knows nothing of what the prompt says.
          TypeError: if there is no such option.
        """
        check_names(sampling, SampleOptions)
        start = sampling.get("start")
        start = 1.0 if start is None else start
        if not isinstance(start, Real) or not 0 < float(start) <= 1:
            raise UserError(f"start, the share of the times that sampling visits, lies in (0, 1], got {start}.")
        options = resolve(self.config, {**sampling, "start": start})
        params, z_T = self.engine.unet(conditioned=c is not None), jnp.asarray(z_T, jnp.float32)
        check_latent_shapes(self.config["first_stage"]["z_channels"], z_T, c)
        cells = cell_names(np.arange(len(z_T)), (0, 0), z_T.shape[1:3])
        strength = self.engine.strength(options.restore, len(z_T))
        given = Given(c, strength, cells, seed_key(sampling.get("seed", 0)))
        given = given._replace(label=self._labels(sampling.get("prompt"), options, len(z_T)))
        if given.label is not None:
            given = given._replace(guidance=guidance_of(options, len(self.alpha_bar)))
        return self.engine.networks.run_sample(params, z_T, given, options=options.compiled)

    def _labels(self, prompt, options, num: int):
        """Returns the labels of `num` examples, int32 [num, 1 + n], or None for a model that knows none."""
        check_prompt(self.engine.vocabulary, prompt)
        prompt = "" if prompt is None else prompt
        return labels_for(self.engine.vocabulary, Request(options, 0, prompt), range(num))

    def decode(self, z: ArrayLike, size: Sequence[int], box: Sequence[int] | None = None) -> np.ndarray:
        """Renders latents in float32 (Eq. 6).

        Args:
          z: latents [b h w c].
          size: (height, width) of the whole image.
          box: (top, left, height, width) of the window to render; by default the whole image.

        Returns:
          A float32 array [b, height, width, 3], not clipped.

        Raises:
          UserError: if the size or the box is impossible, or the result does not fit in memory.
        """
        return self._render(z, size, box, "float32")

    def render(self, z: ArrayLike, size: Sequence[int], box: Sequence[int] | None = None) -> np.ndarray:
        """Renders latents as uint8 images; the values are those of `decode`, clipped and rounded.

        A window has the same bytes as that part of the whole image, so one can pan over an image that is too large for
        memory. The arguments and errors are those of `decode`; the result is uint8 [b, height, width, 3].
        """
        return self._render(z, size, box, "uint8")

    def render_rows(
        self, z: ArrayLike, size: Sequence[int], box: Sequence[int] | None = None, dtype: str = "uint8"
    ) -> Iterator[np.ndarray]:
        """Renders one latent [h w c] a part at a time, for an image that is larger than memory.

        Args:
          z: the latent.
          size: (height, width) of the whole image.
          box: as in `decode`.
          dtype: "uint8", "uint16" or "float32".

        Yields:
          Rows [n, width, 3] from the top down.

        Raises:
          UserError: if the size or the box is impossible.
        """
        latent = check_latents(np.asarray(z)[None], self.config["first_stage"]["z_channels"])[0]
        size = check_size(size)
        self.engine.need_decoder()
        view = View(size, check_box(box, size), dtype, self.config["sampling"]["statistics"])
        for _, rows in Renderer(self.engine, latent, view).bands():
            yield rows

    def _render(self, z, size, box, dtype: str) -> np.ndarray:
        z, size = check_latents(z, self.config["first_stage"]["z_channels"]), check_size(size)
        box = check_box(box, size)
        shape = (len(z), *box[2:], 3)
        check_memory(shape, dtype)
        out = np.empty(shape, dtype)
        for i, latent in enumerate(z):
            fill(out[i], self.render_rows(latent, size, box, dtype))
        return out
