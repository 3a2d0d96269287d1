"""Holds the models, and samples latents and renders windows of them; what was used last stays in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.alpha import resize_channel
from arbiscale_jax.inference import Model, channels
from arbiscale_jax.inference.viewer import Viewer
from arbiscale_jax.web.limits import Limits
from arbiscale_jax.web.picture_store import PictureStore
from arbiscale_jax.web.shelf import Shelf
from arbiscale_jax.web.views import ImageView, PhotoView, View

Progress = Callable[[int, int], object]
VIEWER_BYTES = 2**28  # of D's features that one view may keep


class LatentRoom:
    """Samples the latents that views name, and renders them.

    Its methods compute, and only the worker's thread calls them, except where they say otherwise.

    Args:
      upscaler: the model that upscales, or None.
      generator: the model that generates, or None.
      pictures: the pictures that were uploaded.
      limits: how much is held in memory.
    """

    def __init__(self, upscaler: Model | None, generator: Model | None, pictures: PictureStore, limits: Limits):
        self.upscaler, self.generator, self.pictures, self.limits = upscaler, generator, pictures, limits
        self._latents: Shelf[np.ndarray] = Shelf(limits.latent_bytes, lambda z: z.nbytes)
        self._viewers: Shelf[Viewer] = Shelf(limits.viewer_bytes, lambda one: one.nbytes)

    def check(self, view: View) -> None:
        """Raises UserError if no model of the server can sample the view, and Missing if its picture is not there."""
        if isinstance(view, ImageView):
            if self.generator is None:
                raise UserError("This server has no model that generates; start it with one, such as emoji.")
            if view.number >= self.limits.images:
                raise UserError(f"Images have numbers from 0 to {self.limits.images - 1}, got {view.number}.")
            return
        if self.upscaler is None:
            raise UserError("This server has no model that upscales; start it with one, such as photos.")
        if view.answer >= self.limits.samples:
            raise UserError(f"Answers have numbers from 0 to {self.limits.samples - 1}, got {view.answer}.")
        if view.restore is not None and not self.upscaler.config["unet"]["strength"]:
            raise UserError("The server's model judges by itself how much to restore; leave restore out.")
        self.pictures.find(view.picture)

    def base_size(self, view: View) -> tuple[int, int]:
        """Returns the (height, width) of the view at x1: its picture's, or the size a model was trained for."""
        if isinstance(view, PhotoView):
            one = self.pictures.find(view.picture)
            return one.height, one.width
        assert self.generator is not None
        side = self.generator.config["sampling"]["size"]
        return side, side

    def together(self, wanted: int) -> int:
        """Returns how many of so many latents the device computes together; a CPU computes one after another."""
        model = self.upscaler or self.generator
        assert model is not None
        return wanted if model.engine.at_once(1, wanted) > 1 else 1

    def has(self, view: View) -> bool:
        """Tells whether the latent is in memory."""
        return self._latents.get(view) is not None

    def sample(self, view: View, wanted: int, progress: Progress | None = None) -> list[np.ndarray]:
        """Returns latents [h w c] of a view and those that follow it, and keeps them in memory.

        Args:
          view: the first one.
          wanted: how many: answers for one picture, or images with the same seed.
          progress: a function that is called with (done, total) after each part of the work.
        """
        if isinstance(view, PhotoView):
            views: list[View] = [view._replace(answer=view.answer + i) for i in range(wanted)]
            found = [self._latents.get(one) for one in views]
            if any(z is None for z in found):
                found = self._sample_answers(view, wanted, progress)
        else:
            views = [view._replace(number=view.number + i) for i in range(wanted)]
            found = [self._latents.get(one) for one in views]
            if any(z is None for z in found):
                found = self._sample_images(view.seed, range(view.number, view.number + wanted), progress)
        latents = [z for z in found if z is not None]
        for one, z in zip(views, latents, strict=True):
            self._latents.put(one, z)
        return latents

    def viewer(self, view: View, progress: Progress | None = None) -> Viewer:
        """Returns what renders windows of a view, after sampling its latent if that is not in memory."""
        viewer = self._viewers.get(view)
        if viewer is None:
            [z] = self.sample(view, 1, progress)
            if isinstance(view, PhotoView):
                assert self.upscaler is not None
                viewer = self.upscaler.viewer(z, self.pictures.read(view.picture), keep=VIEWER_BYTES)
            else:
                assert self.generator is not None
                viewer = self.generator.viewer(z, keep=VIEWER_BYTES)
            self._viewers.put(view, viewer)
        return viewer

    def window(self, view: View, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
        """Renders a window of a view, uint8 or uint16 [h w c]."""
        viewer = self.viewer(view)
        found = viewer.render(size, box)
        self._viewers.put(view, viewer)  # its features count only now
        return found

    def interpolated(self, view: View, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
        """Returns a window of what bicubic interpolation makes of the view at x1, to compare with."""
        if isinstance(view, PhotoView):
            pixels = self.pictures.read(view.picture).pixels
        else:
            pixels = self.viewer(view).render(self.base_size(view))
        layers = channels.split(pixels)
        shown = [layers.colours[..., i] for i in range(1 if layers.grey else 3)]
        shown += [] if layers.alpha is None else [layers.alpha]
        return np.stack([resize_channel(one, size, box) for one in shown], axis=-1)

    def memory(self) -> dict[str, int]:
        """Returns the bytes of latents and features in memory; any thread may call it."""
        return {"latents": self._latents.nbytes(), "features": self._viewers.nbytes()}

    def _sample_answers(self, view: PhotoView, number: int, progress: Progress | None) -> list[Any]:
        assert self.upscaler is not None
        latents = self.upscaler.upscale_latent(
            self.pictures.read(view.picture),
            samples=number,
            first=view.answer,
            seed=view.seed,
            restore=view.restore,
            progress=progress,
        )
        return list(np.asarray(latents))

    def _sample_images(self, seed: int, numbers: range, progress: Progress | None) -> list[Any]:
        assert self.generator is not None
        each = self.generator.generate_each(numbers.stop, numbers, seed=seed, progress=progress)
        return [z for _, latents in each for z in latents]
