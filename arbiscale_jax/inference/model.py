"""The Model: one object that upscales, generates and renders (paper Fig. 3)."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import diffusion, models
from arbiscale_jax.errors import UserError

from . import windows
from .render import check_box, check_size, reduce_lines, render_tiles, to_floats, to_integers

MAX_SCALE = 2.0**30


class Model:
    """Encoder, U-Net and implicit neural decoder with their weights.

    Args: config, the `model` part of a configuration; params, {"first_stage": ..., "unet": ...} (the latter absent in
      an auto-encoder alone), float32 trees; scale_factor, 1 / std of the latents; dtype, compute type.
    Latents are float32 [b, h, w, c] times scale_factor, images float32 [b, H, W, 3] in [-1, 1] unless uint8 is said.
    """

    def __init__(
        self, config: Mapping, params: Mapping, scale_factor: float = 1.0, dtype=jnp.float32, tile: int | None = None
    ):
        self.config = config = models.complete(config)
        self.params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), dict(params))
        self.scale_factor = float(scale_factor)
        self.alpha_bar = diffusion.make_alpha_bar(**config["schedule"])
        self.factor = models.spatial_factor(config)
        self.tile = tile
        self._net, self._unet = models.build_first_stage(config, dtype), models.build_unet(config, dtype)
        # "highest": TF32 would break agreement to 1e-4 on a GPU; where bfloat16 is asked for it has no effect
        precise = jax.default_matmul_precision("highest")

        def apply(method):
            return precise(lambda p, *a: self._net.apply({"params": p}, *a, method=method))

        low, high = (config["sampling"].get(name) or None for name in ("cell_min", "cell_max"))

        def known(axis):  # f_theta is told no size of a pixel that it was not trained on
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

    # float32, jit-compiled

    def posterior(self, x):
        """Encodes x [b H W 3] -> (mean, log_var) [b H/f W/f c], unscaled; log_var is None without double_z."""
        x = self._image(x)
        return self._posterior(self._first_stage("encoder"), x)

    def encode(self, x):
        """Encodes x [b H W 3] to the latent that diffusion sees: posterior mean times scale_factor, [b H/f W/f c]."""
        return self.posterior(x)[0] * self.scale_factor

    def decode(self, z, size, box=None) -> np.ndarray:
        """Renders latents at `size` in float32 (Eq. 6).

        Args: z, [b h w c], scaled; size, (height, width) of the virtual image; box, (top, left, height, width) of the
          window wanted, default the whole.
        Returns: float32 [b, height, width, 3], not clipped.
        Raises: UserError for a size or box that makes no image, or does not fit in memory.
        """
        return self._render(z, size, box, np.float32, lambda x: x)

    def condition(self, lr):
        """Encodes low-resolution images for the U-Net (paper 4.3): lr [b h w 3] in [-1, 1] -> c [b h' w' c].

        The image is enlarged by the ratio of the training sizes, so that E brings it to the latent grid.
        Raises: UserError if the model is unconditional.
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

    def denoise(self, z_t, t, c=None, restore=None):
        """Predicts the noise in z_t at times t (an int, or integers [b]) given condition c: all [b h w c].

        Args: restore, as in `upscale_latent`.
        """
        self._check_restore(restore)
        z_t = jnp.asarray(z_t, jnp.float32)
        t = jnp.broadcast_to(jnp.asarray(t), z_t.shape[:1])
        return self._eps(self._unet_params(c), z_t, t, c, self._strength(restore, len(z_t)))

    def sample(self, z_T, c=None, *, steps=None, sampler=None, eta=None, start=1.0, seed=0):
        """Runs the reverse process from z_T [b h w c] -> z_0 [b h w c]; the whole loop is one compiled scan.

        Args: c, the condition where the model has one; steps, sampler (diffusion.SAMPLERS), eta, default as trained
          (config.sampling); start in (0, 1], the share of the times to visit, at whose noisiest z_T is; seed, of DDIM's
          noise where eta > 0: example i draws from (seed, i).
        Raises: UserError for steps outside 1 .. start T, an unknown sampler, eta or start out of range.
        """
        options = self._options(steps=steps, sampler=sampler, eta=eta, start=start)
        return self._sample_with(jnp.asarray(z_T, jnp.float32), c, self._keys(seed, range(len(z_T))), options)

    # images in, images out

    def upscale(self, image, scale=None, *, size=None, samples=None, **sampling):
        """Upscales a photograph.

        Args: image, uint8 or uint16 [h, w, 3] RGB; either scale > 0 (output round(scale h) x round(scale w)) or size,
          (height, width); samples, how many plausible answers, None for one without the leading axis; sampling, the
          options of `upscale_latent`: seed, steps, sampler, eta, start, restore, refine, progress.
        Returns: [H, W, 3], or [samples, H, W, 3], of the image's dtype.
        Raises: UserError for an image, scale or size that cannot be, or that does not fit in memory.
        """
        image = check_image(image)
        size = output_size(image.shape[:2], scale, size)
        num = 1 if samples is None else _whole(samples, "samples", 1)
        check_memory((num, *size, 3), image.dtype)
        out = np.empty((num, *size, 3), image.dtype)
        for i, answer in enumerate(self.upscale_each(image, size, num, **sampling)):
            out[i] = answer
        return out[0] if samples is None else out

    def upscale_each(self, image, size, samples=1, *, progress=None, **sampling) -> Iterator[np.ndarray]:
        """Upscales a photograph to `size` (height, width), one answer after the other: yields [H, W, 3] arrays.

        A photograph that is too large for one pass is upscaled in overlapping windows (`windows.py`).
        Args, Raises: as of `upscale`.
        """
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

    def in_one_pass(self, shape) -> bool:
        """Whether a photograph of this shape [h, w, ...] is upscaled as a whole, not in windows."""
        self._need_condition()
        side = windows.window_side(self.config)
        return side is None or math.prod(shape[:2]) <= side**2

    def upscale_latent(self, image, *, samples=1, seed=0, refine=None, progress=None, **sampling):
        """Samples latents of `image` (uint8 or uint16 [h, w, 3]) for `render`: -> [samples, h', w', c].

        Args: seed: answer i depends on (seed, i) alone; sampling: steps, sampler, eta as in `sample`; start: 0 starts
          from noise (the paper), s in (0, 1] at time s T from q(z_t | z_0 = c), the condition being a first guess of
          z_0 (after Chung et al. 2022); restore in [0, 1], how much of the input's noise and compression is cleaned
          away, where the model is told that (default: config.sampling's, below 0: it judges by itself); refine, rounds
          of back-projection, after Irani & Peleg 1991: what the shrunk render lacks of the image is added in the
          latent, z_0 + E(image) - E(shrunk render); progress, called with (done, total).
        Raises: UserError for an image that is none, or so large that only `upscale` can do it, window by window.
        """
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
        """Samples the answers of these numbers to lr [1 h w 3].

        Args: place, (top, left) in cells of lr in the padded picture, whose noise is cut out of one field; None:
          independent noise.
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
        """Returns `windows.upscale`'s show: the answer of this number, of one window of the image; then `tell`s."""
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
        """Renders z [1 h w c] as large as E sees images, shrinks that to `shape` [1 h w 3] and encodes it again."""
        x = self.decode(z, tuple(side * self.factor for side in z.shape[1:3]))
        return self.condition(jax.image.resize(jnp.clip(x, -1, 1), shape, "cubic"))

    def generate(self, num=1, size=None, **sampling):
        """Generates uint8 [num, height, width, 3] images at `size`, default the training size.

        Args: sampling, the options of `generate_latent`: seed, steps, sampler, eta, progress.
        """
        side = self.config["sampling"]["size"]
        size = check_size(size or (side, side))
        check_memory((_whole(num, "num", 1), *size, 3), np.dtype(np.uint8))
        return self.render(self.generate_latent(num, **sampling), size)

    def generate_latent(self, num=1, *, seed=0, steps=None, sampler=None, eta=None, progress=None):
        """Samples latents from noise -> [num, h, w, c] at the training size; latent i depends on (seed, i) alone.

        Raises: UserError if the model needs a condition, or has no U-Net.
        """
        options = self._options(steps=steps, sampler=sampler, eta=eta, start=0.0)
        shape, numbers = self.generated_shape(), range(_whole(num, "num", 1))
        return self._sample_many(lambda keys: self._noise(keys, shape), None, numbers, seed, options, progress)

    def generated_shape(self) -> tuple[int, int, int]:
        """Returns the shape (h, w, c) of a generated latent. Raises: UserError if the model needs a condition."""
        if self.config["condition"]["enabled"]:
            raise UserError("This model upscales images and cannot generate without one; use an unconditional model.")
        side = self.config["sampling"]["size"] // self.factor
        return side, side, self.config["first_stage"]["z_channels"]

    def render(self, z, size, box=None) -> np.ndarray:
        """Renders latents [b h w c] at `size` (height, width), or its window `box`: `decode`, clipped, as uint8.

        A window's bytes are those of the whole image, so a caller can pan over an image too large to hold.
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
            render_tiles(grid, features, size, box, out[i : i + 1], finish, self.tile, place, finer)
        return out

    def finer(self, cells, size) -> tuple[int, int]:
        """Returns how many times finer an output of `size` over `cells` (of D's features) is rendered, then reduced."""
        least = self.config["sampling"]["finest"] / self.subcells
        return tuple(models.finer_factor(least, n, length) for n, length in zip(cells, size))

    def _image(self, x):
        x = jnp.asarray(x, jnp.float32)
        if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < self.factor:
            raise UserError(
                f"Images are float32 [b, H, W, 3] of at least {self.factor} pixels a side, got {list(x.shape)}."
            )
        return x

    def _first_stage(self, part):
        """The auto-encoder's weights. Raises: UserError if `part` is absent, as of an imported encoder alone."""
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

    def _reverse(self, params, z_T, c, keys, strength, **options):
        def eps_fn(z_t, t):
            return self._predict_eps(params, z_t, t, c, strength)

        return diffusion.sample(eps_fn, z_T, self.alpha_bar, keys=keys, **options)

    def _options(self, *, steps=None, sampler=None, eta=None, start=None, restore=None) -> dict:
        """Fills in the model's own settings where none are given."""
        given = {"steps": steps, "sampler": sampler, "eta": eta, "start": start}
        own = {"start": 0.0, **self.config["sampling"]}
        options = {name: own[name] if value is None else value for name, value in given.items()}
        self._check_restore(restore)
        return {**options, "eta": float(options["eta"]), "start": float(options["start"]), "restore": restore}

    def _check_restore(self, restore) -> None:
        """Raises: UserError for a restore out of range, or a model that knows none."""
        if restore is None:
            return
        if not self.config["unet"]["strength"]:
            raise UserError("This model is not told how much to restore; leave restore out.")
        if isinstance(restore, bool) or not isinstance(restore, Real) or not 0 <= restore <= 1:
            raise UserError(f"restore is a number from 0 (keeps the input's grain) to 1 (cleans), got {restore!r}.")

    def _strength(self, restore, num: int):
        """Returns what the U-Net is told of the damage, [num], None where it is told nothing."""
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
        """Makes what sampling begins with: `noise`, or where start > 0 the condition noised to the first time."""
        if not options["start"]:
            return noise, {**options, "start": 1.0}
        try:
            T, start, sampler = len(self.alpha_bar), options["start"], options["sampler"]
            t = diffusion.first_time(options["steps"], T, start, sampler)
        except ValueError as e:
            raise UserError(str(e)) from e
        return diffusion.q_sample(c, noise, np.full(len(noise), t), self.alpha_bar), options

    def _sample_many(self, noise: Callable, c, numbers, seed, options, progress):
        """Samples one latent at a time, so that memory, and each answer, do not depend on their number.

        Args: noise, keys [1] -> standard normal [1 h w c]; c, the condition [1 h w c], or None.
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
    """Raises UserError unless `image` is a uint8 or uint16 array [h, w, 3], which it returns."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"An image is a uint8 or uint16 array [h, w, 3], got {image.dtype} {list(image.shape)}.")
    return image


def output_size(shape, scale, size) -> tuple[int, int]:
    """Returns the output (height, width) of an (h, w) image: `size`, or round(scale h) x round(scale w).

    Raises: UserError unless exactly one is given, and unless the scale is a finite number > 0 that leaves a pixel.
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
    """Returns the machine's memory in bytes."""
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
