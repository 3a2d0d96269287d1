"""Defines the Model, one object that upscales, generates and renders (paper Fig. 3)."""

from collections.abc import Iterator, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.runtime.random import whole_seed

from .checks import check_box, check_image, check_memory, check_size, output_size, whole
from .latent_model import LatentModel
from .latents import generate_all, upscale, upscale_together
from .options import GenerateOptions, UpscaleOptions, check_names, resolve
from .rendering import View, render_together
from .sheets import Job


class Model(LatentModel):
    """Upscales photographs, generates images, and does with latents what LatentModel does, whose arguments it takes."""

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
          **sampling: steps, sampler, eta, start, restore, statistics, seed, refine, progress (UpscaleOptions).

        Returns:
          An array [H, W, 3], or [samples, H, W, 3], of the image's type.

        Raises:
          UserError: if the image, scale or size is impossible, or the result does not fit in memory.
          TypeError: if there is no such option.
        """
        check_names(sampling, UpscaleOptions)
        image = check_image(image)
        size = output_size(image.shape[:2], scale, size)
        num = 1 if samples is None else whole(samples, "samples", 1)
        check_memory((num, *size, 3), image.dtype)
        out = np.empty((num, *size, 3), image.dtype)
        for _, i, bands in self.upscale_each([image], [size], num, **sampling):
            first = 0
            for rows in bands:
                out[i, first : first + len(rows)] = rows
                first += len(rows)
        return out[0] if samples is None else out

    def upscale_each(
        self,
        images: Sequence[np.ndarray],
        sizes: Sequence[Sequence[int]],
        samples: int = 1,
        *,
        box: Sequence[int] | None = None,
        **sampling: Unpack[UpscaleOptions],
    ) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
        """Upscales several photographs together, without holding a result as a whole.

        Args:
          images: photographs, uint8 or uint16 RGB [h, w, 3].
          sizes: the (height, width) of each output.
          samples: the number of plausible answers for each.
          box: (top, left, height, width) of the window of each output to render; by default the whole.
          **sampling: as in `upscale`.

        Yields:
          Triples (number of the photograph, number of the answer, rows): rows yields arrays [n, W, 3] of the
          photograph's type from the top down.

        Raises:
          UserError: if an image or a size is impossible.
          TypeError: if there is no such option.
        """
        check_names(sampling, UpscaleOptions)
        images, sizes = [check_image(image) for image in images], [check_size(size) for size in sizes]
        job = self._job(images, samples, sampling)
        shared, kinds = job.options.statistics, [image.dtype.name for image in images]
        views = [View(size, check_box(box, size), kind, shared) for size, kind in zip(sizes, kinds, strict=True)]
        self.engine.need_decoder()
        for found in upscale_together(self.engine, job):
            for i in range(samples):
                chosen = [views[number] for number, _ in found]
                for k, bands in render_together(self.engine, [z[i] for _, z in found], chosen):
                    yield found[k][0], i, (rows for _, rows in bands)

    def upscale_latent(
        self,
        image: np.ndarray,
        *,
        samples: int = 1,
        **sampling: Unpack[UpscaleOptions],
    ) -> jax.Array:
        """Samples latents of `image` for `render`.

        Args:
          image: uint8 or uint16 RGB [h, w, 3].
          samples: the number of latents.
          **sampling: as in `upscale`; errors are those of `upscale`, too.

        Returns:
          The latents, [samples, h', w', c].
        """
        check_names(sampling, UpscaleOptions)
        [(_, z)] = upscale(self.engine, self._job([check_image(image)], samples, sampling))
        return jnp.asarray(z)

    def _job(self, images, samples, sampling) -> Job:
        self.engine.need_condition()
        numbers, seed = range(whole(samples, "samples", 1)), whole_seed(sampling.get("seed", 0))
        return Job(images, numbers, resolve(self.config, sampling), seed, sampling.get("progress"))

    def generate(
        self, num: int = 1, size: Sequence[int] | None = None, **sampling: Unpack[GenerateOptions]
    ) -> np.ndarray:
        """Generates images.

        Args:
          num: the number of images.
          size: (height, width) of the images; by default the training size.
          **sampling: seed, steps, sampler, eta and progress (GenerateOptions); image i depends on (seed, i) alone.

        Returns:
          A uint8 array [num, height, width, 3].

        Raises:
          UserError: if the model needs a condition, or has no U-Net.
          TypeError: if there is no such option.
        """
        check_names(sampling, GenerateOptions)
        side = self.config["sampling"]["size"]
        size = check_size(size or (side, side))
        check_memory((whole(num, "num", 1), *size, 3), np.uint8)
        return self.render(self.generate_latent(num, **sampling), size)

    def generate_latent(self, num: int = 1, **sampling: Unpack[GenerateOptions]) -> jax.Array:
        """Samples latents [num, h, w, c] from noise at the training size; arguments and errors as in `generate`."""
        check_names(sampling, GenerateOptions)
        options, seed = resolve(self.config, {**sampling, "start": 0.0}), whole_seed(sampling.get("seed", 0))
        return generate_all(self.engine, whole(num, "num", 1), options, seed, sampling.get("progress"))
