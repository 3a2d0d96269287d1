"""Defines the Model, one object that upscales, generates and renders (paper Fig. 3)."""

from collections.abc import Container, Iterator, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.images.kinds import to_picture
from arbiscale_jax.runtime.random import whole_seed

from . import channels
from .checks import check_box, check_memory, check_size, whole
from .latent_model import LatentModel
from .latents import generate_each, upscale, upscale_together
from .options import GenerateOptions, UpscaleOptions, check_names, resolve
from .results import upscale_whole
from .sheets import Job
from .tiles import View


class Model(LatentModel):
    """Upscales photographs, generates images, and does with latents what LatentModel does, whose arguments it takes."""

    def upscale(
        self,
        image: Any,
        scale: float | None = None,
        *,
        size: Sequence[int] | None = None,
        samples: int | None = None,
        **sampling: Unpack[UpscaleOptions],
    ) -> Any:
        """Upscales a picture of any kind.

        Args:
          image: an array, uint8, uint16 or floats in [0, 1], [h, w] or [h, w, c] with c = 1 (grey), 2 (grey and alpha),
            3 (RGB) or 4 (RGB and alpha); a PIL image, which is turned as its EXIF data say; an images.Picture; or the
            path of an image file.
          scale: a factor above 0, which makes the output round(scale h) x round(scale w).
          size: (height, width) of the output, in place of scale.
          samples: the number of plausible answers; None means one answer, without the leading axis.
          **sampling: steps, sampler, eta, start, restore, statistics, seed, refine, progress (UpscaleOptions).

        Returns:
          The kind that it got: an array [H, W] or [H, W, c] of the image's type, with samples [samples, ...]; for a PIL
            image a PIL image or a list of them; for a path or a Picture an array uint8 or uint16 [H, W, c].

        Raises:
          UserError: if the image, scale or size is impossible, or the result does not fit in memory.
          TypeError: if there is no such option.
        """
        check_names(sampling, UpscaleOptions)
        return upscale_whole(self.upscale_each, image, scale, size, samples, sampling)

    def upscale_each(
        self,
        images: Sequence[Any],
        sizes: Sequence[Sequence[int]],
        samples: int = 1,
        *,
        box: Sequence[int] | None = None,
        **sampling: Unpack[UpscaleOptions],
    ) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
        """Upscales several pictures together, without holding a result as a whole.

        Args:
          images: pictures, as in `upscale`.
          sizes: the (height, width) of each output.
          samples: the number of plausible answers for each.
          box: (top, left, height, width) of the window of each output to render; by default the whole.
          **sampling: as in `upscale`.

        Yields:
          Triples (number of the picture, number of the answer, rows): rows yields arrays [n, W, c] from the top down,
          uint8 or uint16 as in images.Picture.

        Raises:
          UserError: if an image or a size is impossible.
          TypeError: if there is no such option.
        """
        check_names(sampling, UpscaleOptions)
        layers, sizes = [channels.split(to_picture(one).pixels) for one in images], [check_size(one) for one in sizes]
        job = self._job([one.colours for one in layers], samples, sampling)
        boxes, kinds = [check_box(box, size) for size in sizes], [one.colours.dtype.name for one in layers]
        views = [View(*some, job.options.statistics) for some in zip(sizes, boxes, kinds, strict=True)]
        self.engine.need_decoder()
        for found in filter(None, upscale_together(self.engine, job)):
            for i in range(samples):
                numbers, latents = [number for number, _ in found], [z[i] for _, z in found]
                here = [layers[number] for number in numbers], latents, [views[number] for number in numbers]
                for k, rows in channels.render(self.engine, *here):
                    yield numbers[k], i, rows

    def upscale_latent(
        self,
        image: Any,
        *,
        samples: int = 1,
        first: int = 0,
        **sampling: Unpack[UpscaleOptions],
    ) -> jax.Array:
        """Samples latents of `image` for `render`.

        Args:
          image: as in `upscale`; its alpha does not count.
          samples: the number of latents.
          first: the number of the first answer; answers are counted from 0.
          **sampling: as in `upscale`; errors are those of `upscale`, too.

        Returns:
          The latents, [samples, h', w', c].
        """
        check_names(sampling, UpscaleOptions)
        colours = channels.split(to_picture(image).pixels).colours
        job = self._job([colours], samples, sampling)
        first = whole(first, "first", 0)
        [(_, z)] = upscale(self.engine, job._replace(numbers=range(first, first + samples)))
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
        return jnp.asarray(np.concatenate([z for _, z in self.generate_each(num, **sampling)]))

    def generate_each(
        self, num: int, wanted: Container[int] | None = None, **sampling: Unpack[GenerateOptions]
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Samples the latents of `generate_latent` without holding all of them.

        Args:
          num: the number of latents.
          wanted: numbers from 0 to num - 1; batches without one are left out. None means all.
          **sampling: as in `generate`; errors are those of `generate`, too.

        Yields:
          Pairs (numbers, their latents [n h w c]) for each batch that the device computes.
        """
        check_names(sampling, GenerateOptions)
        options, seed = resolve(self.config, {**sampling, "start": 0.0}), whole_seed(sampling.get("seed", 0))
        num, progress = whole(num, "num", 1), sampling.get("progress")
        yield from generate_each(self.engine, num, options, seed, progress, range(num) if wanted is None else wanted)
