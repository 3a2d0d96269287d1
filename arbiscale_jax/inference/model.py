"""Defines the Model, one object that upscales, generates and renders (paper Fig. 3)."""

from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from arbiscale_jax.images.kinds import to_picture
from arbiscale_jax.runtime.random import whole_seed

from . import channels
from .checks import check_box, check_latents, check_size, whole
from .generator import Generator
from .latents import upscale, upscale_together
from .options import UpscaleOptions, check_names, resolve
from .results import upscale_whole
from .sheets import Job
from .tiles import View
from .viewer import KEPT_BYTES, Viewer


class Model(Generator):
    """Upscales photographs, generates images as Generator does, and does with latents what LatentModel does.

    The arguments are those of LatentModel.
    """

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

    def viewer(self, z: ArrayLike, image: Any = None, *, keep: int = KEPT_BYTES) -> Viewer:
        """Returns a Viewer of one latent, for many windows at any sizes; D is then applied once.

        Args:
          z: the latent [h w c].
          image: the picture of which z is a latent; windows then are those of `upscale`, otherwise those of `render`.
          keep: how many bytes of D's features are kept; those of the last block are kept in any case.

        Raises:
          UserError: if the latent has another shape, or the image is none.
        """
        latent = check_latents(np.asarray(z)[None], self.config["first_stage"]["z_channels"])[0]
        self.engine.need_decoder()
        return Viewer(self.engine, latent, self.config["sampling"]["statistics"], image, keep)
