"""Defines the Model, one object that upscales, generates and renders (paper Fig. 3)."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from numbers import Real
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from arbiscale_jax import diffusion, models
from arbiscale_jax.errors import UserError

from . import windows
from .options import AnswerOptions, SamplingOptions, UpscaleOptions, check_options
from .render import View, check_box, check_size, reduce_lines, render_tiles, to_floats, to_integers

MAX_SCALE = 2.0**30


class Model:
    """Holds the encoder, the U-Net and the implicit neural decoder with their weights.

    Latents are float32 [b, h, w, c] multiplied by scale_factor. Images are float32 [b, H, W, 3] in [-1, 1] unless a
    docstring says uint8.

    Args:
      config: the `model` part of a configuration.
      params: {"first_stage": ..., "unet": ...}, trees of float32 weights; an auto-encoder alone has no "unet".
      scale_factor: 1 / std of the latents.
      dtype: the type in which the networks compute.
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
        self.name, self.dtype = name, jnp.dtype(dtype)
        self.config = config = models.complete(config)
        self.params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), dict(params))
        self.scale_factor = float(scale_factor)
        self.alpha_bar = diffusion.make_alpha_bar(**config["schedule"])
        self.factor = models.spatial_factor(config)
        self.tile = tile
        self._net, self._unet = models.build_first_stage(config, dtype), models.build_unet(config, dtype)
        # "highest", since with TF32 results on a GPU would differ by more than 1e-4; it does not change bfloat16
        precise = jax.default_matmul_precision("highest")

        def apply(method):
            return precise(lambda p, *a: self._net.apply({"params": p}, *a, method=method))

        low, high = (config["sampling"].get(name) or None for name in ("cell_min", "cell_max"))

        def known(axis):  # f_theta is told only pixel sizes that it was trained on
            return axis if low is high is None else axis._replace(cell=jnp.clip(axis.cell, low, high))

        grid, self.subcells = apply("grid"), self._net.subcells

        def show(p, features, rows, cols):
            return reduce_lines(grid(p, features, known(rows.axis), known(cols.axis)), rows, cols)

        self._posterior, self._grid = jax.jit(apply("posterior")), jax.jit(show)
        self.border, decode = int(config["sampling"].get("border", 0)), apply("features")
        self._features = jax.jit(
            lambda p, z: models.cut_border(
                decode(p, models.reflect_border(z, self.border)), self.border * self.subcells
            )
        )
        self._eps = jax.jit(precise(self._predict_eps))
        self._sample = jax.jit(precise(self._reverse), static_argnames=("steps", "sampler", "eta", "start"))
        self._noise = jax.jit(jax.vmap(jax.random.normal, (0, None)), static_argnums=1)

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

    # methods on float32 arrays, compiled with jit

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
        x = self._image(x)
        return self._posterior(self._first_stage("encoder"), x)

    def encode(self, x: ArrayLike) -> jax.Array:
        """Encodes images to the latent that diffusion sees, the posterior mean times scale_factor.

        Args:
          x: images [b H W 3] in [-1, 1].

        Returns:
          The latents, [b H/f W/f c].

        Raises:
          UserError: if the images have another shape, or the model has no encoder.
        """
        return self.posterior(x)[0] * self.scale_factor

    def decode(self, z: ArrayLike, size: Sequence[int], box: Sequence[int] | None = None) -> np.ndarray:
        """Renders latents in float32 (Eq. 6).

        Args:
          z: scaled latents [b h w c].
          size: (height, width) of the whole image.
          box: (top, left, height, width) of the window to render; by default the whole image.

        Returns:
          A float32 array [b, height, width, 3], not clipped.

        Raises:
          UserError: if the size or the box is impossible, or the result does not fit in memory.
        """
        return self._render(z, size, box, np.float32, lambda x: x)

    def condition(self, lr: ArrayLike) -> jax.Array:
        """Encodes low-resolution images for the U-Net (paper 4.3).

        The images are enlarged by the ratio of the training sizes, so that E brings them to the grid of the latent.

        Args:
          lr: images [b h w 3] in [-1, 1].

        Returns:
          The condition c, [b h' w' c].

        Raises:
          UserError: if the model is unconditional.
        """
        cond = self._need_condition()
        lr = jnp.asarray(lr, jnp.float32)
        cells = [max(1, round(side * cond["upsampling"] / self.factor)) for side in lr.shape[1:3]]
        size = (cells[0] * self.factor, cells[1] * self.factor)
        return self.encode(models.interpolate(lr, size, cond["interpolation"]))

    def _need_condition(self) -> Mapping:
        cond = self.config["condition"]
        if not cond["enabled"]:
            raise UserError("This model generates images and takes no condition; upscaling needs an SR model.")
        return cond

    def denoise(
        self, z_t: ArrayLike, t: ArrayLike, c: ArrayLike | None = None, restore: float | None = None
    ) -> jax.Array:
        """Predicts the noise in z_t.

        Args:
          z_t: noisy latents [b h w c].
          t: their times, an int or integers [b].
          c: the condition [b h w c], for a model that has one.
          restore: as in `upscale_latent`.

        Returns:
          The predicted noise, [b h w c].

        Raises:
          UserError: if the model has no U-Net, or the condition or `restore` does not suit it.
        """
        self._check_restore(restore)
        z_t = jnp.asarray(z_t, jnp.float32)
        t = jnp.broadcast_to(jnp.asarray(t), z_t.shape[:1])
        return self._eps(self._unet_params(c), z_t, t, c, self._strength(restore, len(z_t)))

    def sample(
        self,
        z_T: ArrayLike,
        c: ArrayLike | None = None,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        eta: float | None = None,
        start: float = 1.0,
        seed: int = 0,
    ) -> jax.Array:
        """Runs the reverse process from z_T to z_0, as one compiled loop.

        Args:
          z_T: latents [b h w c] to start from, at the noisiest of the times that are visited.
          c: the condition [b h w c], for a model that has one.
          steps: the number of evaluations of the U-Net; None means the model's own (config.sampling).
          sampler: one of diffusion.SAMPLERS; None means the model's own.
          eta: the share of the noise that DDIM adds in each step; None means the model's own.
          start: the share of the schedule's times, in (0, 1], that the process covers.
          seed: the seed of DDIM's noise, used if eta > 0; example i depends on (seed, i).

        Returns:
          The latents z_0, [b h w c].

        Raises:
          UserError: if steps is outside 1 .. start T, the sampler is unknown, or eta or start is out of range.
        """
        options = self._options(steps=steps, sampler=sampler, eta=eta, start=start)
        z_T = jnp.asarray(z_T, jnp.float32)
        return self._sample_with(z_T, c, self._keys(seed, range(len(z_T))), options)

    # methods from images to images

    def upscale(
        self,
        image: np.ndarray,
        scale: float | None = None,
        *,
        size: Sequence[int] | None = None,
        samples: int | None = None,
        **sampling: Unpack[UpscaleOptions],
    ) -> np.ndarray:
        """Upscales a photograph.

        Args:
          image: uint8 or uint16 RGB [h, w, 3].
          scale: a factor above 0, which makes the output round(scale h) x round(scale w).
          size: (height, width) of the output, in place of scale.
          samples: the number of plausible answers; None means one answer, without the leading axis.
          **sampling: the options of `upscale_latent`: seed, steps, sampler, eta, start, restore, refine and progress.

        Returns:
          An array [H, W, 3], or [samples, H, W, 3], of the image's type.

        Raises:
          UserError: if the image, scale or size is impossible, or the result does not fit in memory.
          TypeError: if there is no such option.
        """
        check_options(sampling, UpscaleOptions)
        image = check_image(image)
        size = output_size(image.shape[:2], scale, size)
        num = 1 if samples is None else _whole(samples, "samples", 1)
        check_memory((num, *size, 3), image.dtype)
        out = np.empty((num, *size, 3), image.dtype)
        for i, answer in enumerate(self.upscale_each(image, size, num, **sampling)):
            out[i] = answer
        return out[0] if samples is None else out

    def upscale_each(
        self,
        image: np.ndarray,
        size: Sequence[int],
        samples: int = 1,
        *,
        progress: Callable[[int, int], object] | None = None,
        **sampling: Unpack[AnswerOptions],
    ) -> Iterator[np.ndarray]:
        """Upscales a photograph to `size`, one answer after another.

        A photograph that is too large for one pass is upscaled in overlapping windows (`windows.py`).

        Args:
          image: uint8 or uint16 RGB [h, w, 3].
          size: (height, width) of the output.
          samples: the number of plausible answers.
          progress: a function that is called with (done, total) after each latent or window.
          **sampling: the options of `upscale_latent`: seed, steps, sampler, eta, start, restore and refine.

        Yields:
          Arrays [H, W, 3] of the image's type.

        Raises:
          UserError: if the image or size is impossible.
          TypeError: if there is no such option.
        """
        check_options(sampling, AnswerOptions)
        image, size, finish = check_image(image), check_size(size), partial(to_integers, dtype=image.dtype)
        if self.in_one_pass(image.shape):
            z = self.upscale_latent(image, samples=samples, progress=progress, **sampling)
            for i in range(len(z)):
                yield self._render(z[i : i + 1], size, None, image.dtype, finish)[0]
            return
        plan = windows.plan(self.config, image.shape, steps=sampling.get("steps"))
        samples, done = _whole(samples, "samples", 1), count(1)
        num = len(plan.starts(0)) * len(plan.starts(1))

        def tell():
            if progress:
                progress(next(done), samples * num)

        for i in range(samples):
            show, out = self._window(image, size, plan, i, tell, **sampling), np.empty((*size, 3), image.dtype)
            for first, rows in windows.upscale(plan, size, show, finish):
                out[first : first + len(rows)] = rows
            yield out

    def in_one_pass(self, shape: Sequence[int]) -> bool:
        """Tells whether a photograph of this shape [h, w, ...] is upscaled as a whole and not in windows."""
        self._need_condition()
        side = windows.window_side(self.config)
        return side is None or math.prod(shape[:2]) <= side**2

    def upscale_latent(
        self,
        image: np.ndarray,
        *,
        samples: int = 1,
        seed: int = 0,
        refine: int | None = None,
        progress: Callable[[int, int], object] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> jax.Array:
        """Samples latents of `image` for `render`.

        Args:
          image: uint8 or uint16 RGB [h, w, 3].
          samples: the number of latents.
          seed: answer i depends on (seed, i) alone.
          refine: the number of rounds of back-projection (after Irani & Peleg 1991), each of which adds to the latent
            what the reduced render lacks of the image: z_0 + E(image) - E(reduced render).
          progress: a function that is called with (done, total) after each latent.
          **sampling: steps, sampler and eta as in `sample`; start, where 0 starts from noise (the paper) and s in (0,
            1] starts at time s T from q(z_t | z_0 = c), with the condition as a first guess of z_0 (after Chung et al.
            2022); restore in [0, 1], how much of the input's noise and compression is cleaned away, for a model that is
            told so (by default config.sampling's value; below 0 the model judges by itself).

        Returns:
          The latents, [samples, h', w', c].

        Raises:
          UserError: if the image is not one, or is so large that only `upscale`, which works in windows, can do it.
          TypeError: if there is no such option.
        """
        check_options(sampling, SamplingOptions)
        height, width = check_image(image).shape[:2]
        self._need_condition()
        if height * width * windows.bytes_per_pixel(self.config) > physical_memory():
            raise UserError(
                f"An image of {height} x {width} pixels is too large for one latent in this machine's memory; "
                "upscale() works in windows."
            )
        numbers, plan = range(_whole(samples, "samples", 1)), windows.plan(self.config, np.shape(image), whole=True)
        lr = plan.pad(to_floats(check_image(image))[None])
        place = (0, 0) if plan.exact else None
        z = self._latents(lr, place, numbers, seed, self._options(**sampling), refine, progress)
        return plan.cut(z)

    def _latents(self, lr, place, numbers, seed, options, refine, progress=None):
        """Samples the answers of these numbers for the padded picture lr [1 h w 3].

        If `place` is (top, left), in cells, of lr in the whole padded picture, the noise is cut out of one field; if it
        is None, each answer has independent noise.
        """
        c = self.condition(lr)
        h, w, channels = c.shape[1:]

        def noise(keys):
            if place is None:
                return self._noise(keys, (h, w, channels))
            return windows.noise_window(self._noise, keys[0], (*place, h, w), channels)

        rounds = _whole(self.config["sampling"].get("refine", 0) if refine is None else refine, "refine", 0)
        z = self._sample_many(noise, c, numbers, seed, options, progress)
        for _ in range(rounds):
            z = jnp.concatenate([one + c - self._seen_again(one, lr.shape) for one in jnp.split(z, len(z))])
        return z

    def _window(self, image, size, plan, number, tell, *, seed=0, refine=None, **sampling) -> Callable:
        """Returns the function `show` for `windows.upscale`, which makes a window of one answer, then calls `tell`."""
        options, ratio = self._options(**sampling), round(plan.ratio)
        lr, cells = plan.pad(to_floats(image)[None]), [side * ratio * self.subcells for side in image.shape[:2]]

        def show(top, left, box):
            part = plan.part(lr, top, left)
            z = plan.cut(self._latents(part, (top * ratio, left * ratio), [number], seed, options, refine))
            place = (*cells, top * ratio * self.subcells, left * ratio * self.subcells)
            pixels = self._render(z, size, box, np.float32, lambda x: x, place)[0]
            tell()
            return pixels

        return show

    def _seen_again(self, z, shape):
        """Renders z [1 h w c] at the size of E's images, reduces that to `shape` [1 h w 3] and encodes it again."""
        x = self.decode(z, tuple(side * self.factor for side in z.shape[1:3]))
        return self.condition(jax.image.resize(jnp.clip(x, -1, 1), shape, "cubic"))

    def generate(
        self,
        num: int = 1,
        size: Sequence[int] | None = None,
        *,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        eta: float | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> np.ndarray:
        """Generates images.

        Args:
          num: the number of images.
          size: (height, width) of the images; by default the training size.
          seed: image i depends on (seed, i) alone.
          steps: the number of evaluations of the U-Net; None means the model's own.
          sampler: one of diffusion.SAMPLERS; None means the model's own.
          eta: the share of the noise that DDIM adds in each step; None means the model's own.
          progress: a function that is called with (done, total) after each latent.

        Returns:
          A uint8 array [num, height, width, 3].

        Raises:
          UserError: if the model needs a condition, or has no U-Net.
        """
        side = self.config["sampling"]["size"]
        size = check_size(size or (side, side))
        check_memory((_whole(num, "num", 1), *size, 3), np.dtype(np.uint8))
        z = self.generate_latent(num, seed=seed, steps=steps, sampler=sampler, eta=eta, progress=progress)
        return self.render(z, size)

    def generate_latent(
        self,
        num: int = 1,
        *,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        eta: float | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> jax.Array:
        """Samples latents from noise at the training size; latent i depends on (seed, i) alone.

        The arguments are those of `generate`.

        Returns:
          The latents, [num, h, w, c].

        Raises:
          UserError: if the model needs a condition, or has no U-Net.
        """
        options = self._options(steps=steps, sampler=sampler, eta=eta, start=0.0)
        shape, numbers = self.generated_shape(), range(_whole(num, "num", 1))
        return self._sample_many(lambda keys: self._noise(keys, shape), None, numbers, seed, options, progress)

    def generated_shape(self) -> tuple[int, int, int]:
        """Returns the shape (h, w, c) of a generated latent, and raises UserError if the model needs a condition."""
        if self.config["condition"]["enabled"]:
            raise UserError("This model upscales images and cannot generate without one; use an unconditional model.")
        side = self.config["sampling"]["size"] // self.factor
        return side, side, self.config["first_stage"]["z_channels"]

    def render(self, z: ArrayLike, size: Sequence[int], box: Sequence[int] | None = None) -> np.ndarray:
        """Renders latents as uint8 images; the values are those of `decode`, clipped and rounded.

        A window has the same bytes as that part of the whole image, so one can pan over an image that is too large for
        memory.

        Args:
          z: scaled latents [b h w c].
          size: (height, width) of the whole image.
          box: (top, left, height, width) of the window to render; by default the whole image.

        Returns:
          A uint8 array [b, height, width, 3].

        Raises:
          UserError: if the size or the box is impossible, or the result does not fit in memory.
        """
        return self._render(z, size, box, np.uint8, to_integers)

    # helpers

    def _render(self, z, size, box, dtype, finish: Callable, place=None) -> np.ndarray:
        z = jnp.asarray(z, jnp.float32)
        if z.ndim != 4 or z.shape[-1] != self.config["first_stage"]["z_channels"]:
            raise UserError(f"Latents are [b, h, w, {self.config['first_stage']['z_channels']}], got {list(z.shape)}.")
        size = check_size(size)
        box = check_box(box, size)
        check_memory((len(z), *box[2:], 3), np.dtype(dtype))
        out = np.empty((len(z), *box[2:], 3), dtype)
        self._first_stage("decoder")
        grid = partial(self._grid, self._first_stage("liif"))
        finer = self.finer(place[:2] if place else [side * self.subcells for side in z.shape[1:3]], size)
        for i in range(len(z)):
            features = self._features(self.params["first_stage"], z[i : i + 1] / self.scale_factor)
            render_tiles(grid, features, View(size, box, place, finer), out[i : i + 1], finish, self.tile)
        return out

    def finer(self, cells: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
        """Returns how many times finer the (rows, columns) of an output of `size` are rendered before they are reduced.

        `cells` is (rows, columns) of the grid of D's features.
        """
        least = self.config["sampling"]["finest"] / self.subcells
        height, width = (models.finer_factor(least, n, length) for n, length in zip(cells, size, strict=True))
        return height, width

    def _image(self, x):
        x = jnp.asarray(x, jnp.float32)
        if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < self.factor:
            raise UserError(
                f"Images are float32 [b, H, W, 3] of at least {self.factor} pixels per side, got {list(x.shape)}."
            )
        return x

    def _first_stage(self, part):
        """Returns the auto-encoder's weights, and raises UserError if `part` is missing, as in an imported encoder."""
        weights = self.params.get("first_stage", {})
        if part not in weights:
            raise UserError(
                f"This model has no {part} (first_stage/{part}); train one, or load a model with a whole auto-encoder."
            )
        return weights

    def _unet_params(self, c):
        if "unet" not in self.params:
            raise UserError(
                "This model is an auto-encoder alone, without a U-Net: it encodes, decodes and renders only."
            )
        if (c is not None) != self.config["condition"]["enabled"]:
            raise UserError(
                "The U-Net needs a condition c." if c is None else "This U-Net is unconditional: c must be None."
            )
        return self.params["unet"]

    def _keys(self, seed, numbers):
        seed = _whole(seed, "seed", 0)
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(list(numbers), jnp.uint32))

    def _predict_eps(self, params, z_t, t, c, strength):
        told = {} if strength is None else {"strength": strength}
        out = self._unet.apply({"params": params}, z_t, t, c, **told)
        return out if models.predicts(self.config) == "eps" else diffusion.eps_from_z_0(z_t, out, t, self.alpha_bar)

    def _reverse(self, params, z_T, c, keys, strength, *, eta=0.0, **options):
        def eps_fn(z_t, t):
            return self._predict_eps(params, z_t, t, c, strength)

        return diffusion.sample(eps_fn, z_T, self.alpha_bar, noise=diffusion.Noise(eta, keys), **options)

    def _options(self, *, steps=None, sampler=None, eta=None, start=None, restore=None) -> dict:
        """Replaces settings that are None by the model's own."""
        given = {"steps": steps, "sampler": sampler, "eta": eta, "start": start}
        own = {"start": 0.0, **self.config["sampling"]}
        options = {name: own[name] if value is None else value for name, value in given.items()}
        self._check_restore(restore)
        return {**options, "eta": float(options["eta"]), "start": float(options["start"]), "restore": restore}

    def _check_restore(self, restore) -> None:
        """Raises UserError if `restore` is out of range, or the model is not told how much to restore."""
        if restore is None:
            return
        if not self.config["unet"]["strength"]:
            raise UserError("This model is not told how much to restore; leave restore out.")
        if isinstance(restore, bool) or not isinstance(restore, Real) or not 0 <= float(restore) <= 1:
            raise UserError(f"restore is a number from 0 (keeps the input's grain) to 1 (cleans), got {restore!r}.")

    def _strength(self, restore, num: int):
        """Returns the strength of the damage that the U-Net is told, [num], or None if it is told nothing."""
        if not self.config["unet"]["strength"]:
            return None
        return jnp.full(num, self.config["sampling"]["restore"] if restore is None else restore, jnp.float32)

    def _sample_with(self, z_T, c, keys, options):
        options = dict(options)
        strength = self._strength(options.pop("restore"), len(z_T))
        try:
            return self._sample(self._unet_params(c), z_T, c, keys, strength, **options)
        except ValueError as e:
            raise e if isinstance(e, UserError) else UserError(str(e)) from e

    def _begin(self, noise, c, options):
        """Returns what sampling starts from, `noise` or, if start > 0, the noised condition, with the options."""
        if not options["start"]:
            return noise, {**options, "start": 1.0}
        try:
            T, start, sampler = len(self.alpha_bar), options["start"], options["sampler"]
            t = diffusion.first_time(options["steps"], T, start, sampler)
        except ValueError as e:
            raise UserError(str(e)) from e
        return diffusion.q_sample(c, noise, np.full(len(noise), t), self.alpha_bar), options

    def _sample_many(self, noise: Callable, c, numbers, seed, options, progress):
        """Samples one latent at a time, so that memory and each answer do not depend on the number of answers.

        `noise` is a function, keys [1] -> standard normal numbers [1 h w c], and `c` is the condition [1 h w c] or
        None.
        """
        latents = []
        for done, number in enumerate(numbers, 1):
            key = self._keys(seed, [number])
            draw = jax.vmap(jax.random.fold_in, (0, None))
            z_T, begun = self._begin(noise(draw(key, 0)), c, options)
            latents.append(jax.block_until_ready(self._sample_with(z_T, c, draw(key, 1), begun)))
            if progress:
                progress(done, len(numbers))
        return jnp.concatenate(latents)


def check_image(image) -> np.ndarray:
    """Returns `image` as an array, and raises UserError unless it is uint8 or uint16 [h, w, 3]."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"An image is a uint8 or uint16 array [h, w, 3], got {image.dtype} {list(image.shape)}.")
    return image


def output_size(shape, scale, size) -> tuple[int, int]:
    """Returns the output (height, width) for an image: `size`, or round(scale h) x round(scale w).

    Args:
      shape: (h, w) of the image.
      scale: a factor above 0, or None.
      size: (height, width), or None.

    Returns:
      The (height, width) of the output.

    Raises:
      UserError: if not exactly one of them is given, or the scale is not a finite number > 0 that leaves at least a
        pixel.
    """
    if (scale is None) == (size is None):
        raise UserError("Give either scale or size.")
    if size is not None:
        return check_size(size)
    try:
        scale = float(scale)
    except (TypeError, ValueError) as e:
        raise UserError(f"scale is a number > 0, got {scale!r}.") from e
    if not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        raise UserError(f"scale is a finite number > 0 (up to {MAX_SCALE:.0f}), got {scale}.")
    height, width = (round(side * scale) for side in shape)
    if not (height and width):
        raise UserError(f"scale {scale} leaves nothing of an image of {shape[0]} x {shape[1]}.")
    return height, width


def physical_memory() -> int:
    """Returns the size of the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(shape, dtype) -> None:
    """Raises UserError if an array of this shape is larger than the machine's memory."""
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed > physical_memory():
        raise UserError(
            f"An output of {' x '.join(map(str, shape))} takes {needed / 2**30:.0f} GiB, "
            "more than this machine's memory; "
            "render windows of it with render(z, size, box=(top, left, height, width))."
        )


def _whole(value, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UserError(f"{name} is a whole number >= {least}, got {value!r}.")
    return int(value)
