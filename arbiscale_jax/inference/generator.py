"""Defines the part of a Model that generates images, for unconditional models."""

from collections.abc import Container, Iterator, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import whole_seed

from .checks import check_memory, check_size, whole
from .from_noise import generate_each, interpolate_each
from .latent_model import LatentModel
from .options import GenerateOptions, check_names
from .prompts import make_request

LEAST_SEEDS = 2


class Generator(LatentModel):
    """Generates images, and does with latents what LatentModel does, whose arguments it takes."""

    def generate(
        self, num: int = 1, size: Sequence[int] | None = None, **sampling: Unpack[GenerateOptions]
    ) -> np.ndarray:
        """Generates images.

        Args:
          num: the number of images.
          size: (height, width) of the images; by default the canvas, or else the training size.
          **sampling: seed, steps, sampler, eta, prompt, guidance, guidance_interval, canvas, coarse and progress
            (GenerateOptions); image i depends on (seed, i) alone.

        Returns:
          A uint8 array [num, height, width, 3].

        Raises:
          UserError: if the model needs a condition, has no U-Net, or knows nothing of what the prompt says.
          TypeError: if there is no such option.
        """
        check_names(sampling, GenerateOptions)
        size = self._size(size, sampling)
        check_memory((whole(num, "num", 1), *size, 3), np.uint8)
        return self.render(self.generate_latent(num, **sampling), size)

    def generate_latent(self, num: int = 1, **sampling: Unpack[GenerateOptions]) -> jax.Array:
        """Samples latents [num, h, w, c] from noise; arguments and errors are those of `generate`."""
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
        num, request = whole(num, "num", 1), make_request(self.engine, sampling)
        yield from generate_each(
            self.engine, num, request, sampling.get("progress"), range(num) if wanted is None else wanted
        )

    def interpolate(
        self,
        seeds: Sequence[int],
        frames: int,
        size: Sequence[int] | None = None,
        index: int = 0,
        **sampling: Unpack[GenerateOptions],
    ) -> np.ndarray:
        """Generates pictures between those of several seeds, by spherical interpolation of all their noise.

        The pictures at the seeds themselves, such as the first and the last, are those of
        `generate(num=index + 1, seed=...)[index]`.

        Args:
          seeds: at least two seeds, which are passed in order at equal distances.
          frames: the number of pictures, at least that of the seeds.
          size: as in `generate`.
          index: which picture of each seed, counted from 0.
          **sampling: as in `generate`, without a seed; a model that knows labels needs a prompt.

        Returns:
          A uint8 array [frames, height, width, 3].

        Raises:
          UserError: as in `generate`, or if there are too few seeds or frames, or no prompt.
          TypeError: if there is no such option.
        """
        check_names(sampling, GenerateOptions)
        size = self._size(size, sampling)
        check_memory((whole(frames, "frames", LEAST_SEEDS), *size, 3), np.uint8)
        latents = [z for _, z in self.interpolate_each(seeds, frames, index, **sampling)]
        return self.render(np.concatenate(latents), size)

    def interpolate_each(
        self, seeds: Sequence[int], frames: int, index: int = 0, **sampling: Unpack[GenerateOptions]
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Samples the latents of `interpolate`, whose arguments and errors it has, without holding all of them.

        Yields:
          Pairs (numbers of frames, their latents [n h w c]) for each batch that the device computes.
        """
        check_names(sampling, GenerateOptions)
        if not isinstance(seeds, Sequence) or len(seeds) < LEAST_SEEDS:
            raise UserError(f"Interpolating goes between seeds; give two at least, got {seeds!r}.")
        seeds = [whole_seed(seed) for seed in seeds]
        if sampling.get("seed"):
            raise UserError("Interpolating takes its seeds in place of seed; leave seed out.")
        frames, index = whole(frames, "frames", len(seeds)), whole(index, "index", 0)
        request = make_request(self.engine, sampling)
        if self.engine.vocabulary is not None and not isinstance(request.prompt, str):
            raise UserError("This model knows labels: interpolating needs one prompt, which all frames share.")
        yield from interpolate_each(self.engine, (seeds, frames, index), request, sampling.get("progress"))

    def _size(self, size: Sequence[int] | None, sampling: GenerateOptions) -> tuple[int, int]:
        side = self.config["sampling"]["size"]
        return check_size(sampling.get("canvas") or (side, side) if size is None else size)
