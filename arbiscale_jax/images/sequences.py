"""Decodes the frames of animations and the pages of TIFF files one after another."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import png, tiff
from arbiscale_jax.images.decoding import decode_page, decode_still, finished_png, from_pillow
from arbiscale_jax.images.formats import check_pixels, limited, open_pillow
from arbiscale_jax.images.picture import Picture
from arbiscale_jax.images.pillow_modes import to_raster

_ANIMATED = ("GIF", "WEBP", "AVIF")


class Frame(NamedTuple):
    """Holds one frame of an animation or one page."""

    picture: Picture
    duration: float | None  # in milliseconds; None for pages and single pictures


@dataclass(frozen=True)
class Frames:
    """Describes the frames of a file; they are decoded whenever they are iterated over."""

    num: int
    loop: int | None  # how often an animation is shown, 0 for without end; None for pages and single pictures
    kind: str  # "animation", "pages" or "picture"
    open: Callable[[], AbstractContextManager[tuple[BinaryIO, str]]]  # gives the file and its name
    max_pixels: int

    def __len__(self) -> int:
        """Returns the number of frames."""
        return self.num

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames.

        Raises:
          UserError: if the file is damaged.
        """
        with self.open() as (file, name):
            decoders = self._decoders(file, name)
            while True:
                with limited(name, self.max_pixels):  # not while the caller works on a frame
                    frame = next(decoders, None)
                if frame is None:
                    return
                yield frame

    def __getitem__(self, index: int) -> Picture:
        """Decodes the picture of one frame; those before are decoded too where it builds on them."""
        if not 0 <= index < self.num:
            raise IndexError(f"There are {self.num} frames, so that there is no frame {index}.")
        if self.kind == "pages":
            with self.open() as (file, name), limited(name, self.max_pixels):
                return decode_page(file, tiff.page_indices(file)[index], name, self.max_pixels)
        for i, frame in enumerate(self):
            if i == index:
                return frame.picture
        raise UserError(f"The file ends before frame {index}; save or copy it again.")

    def _decoders(self, file: BinaryIO, name: str) -> Iterator[Frame]:
        if self.kind == "picture":
            yield Frame(decode_still(file, name, self.max_pixels), None)
        elif self.kind == "pages":
            for index in tiff.page_indices(file):
                yield Frame(decode_page(file, index, name, self.max_pixels), None)
        else:
            yield from _animation(file, name, self.max_pixels)


def count_frames(file: BinaryIO, name: str, max_pixels: int) -> tuple[int, int | None, str]:
    """Returns the number of a file's frames, how often they are shown, and their kind, as in `Frames`.

    It is to be called within `limited`.
    """
    head = file.read(16)
    file.seek(0)
    if tiff.is_tiff(head):
        num = len(tiff.page_indices(file))
        file.seek(0)
        return (num, None, "pages") if num > 1 else (1, None, "picture")
    if head.startswith(png.SIGNATURE):
        parts = png.parse(file.read())
        file.seek(0)
        if not parts.animation:
            return 1, None, "picture"
        file = io.BytesIO(parts.animation)
    if re.match(rb"P[1-7Ff]\s", head):  # of which Pillow does not know all
        return 1, None, "picture"
    image = open_pillow(file, name, max_pixels)  # not closed, since the caller goes on with the file
    num = getattr(image, "n_frames", 1) - bool(image.info.get("default_image"))
    animated = image.format in _ANIMATED or image.format == "PNG"
    loop = _loop(image)
    file.seek(0)
    return (num, loop, "animation") if animated and num > 1 else (1, None, "picture")


def _loop(image: Image.Image) -> int:
    """Returns how often an animation is shown in all, 0 for without end."""
    loop = image.info.get("loop")
    if image.format == "GIF":  # which states how often it is repeated, and without that is shown once
        return 1 if loop is None else 0 if loop == 0 else int(loop) + 1
    return int(loop or 0)


def _animation(file: BinaryIO, name: str, max_pixels: int) -> Iterator[Frame]:
    head, parts = file.read(16), None
    file.seek(0)
    if head.startswith(png.SIGNATURE):
        parts = png.parse(file.read())
        file = io.BytesIO(parts.animation or parts.pixels)
    image = open_pillow(file, name, max_pixels)
    first = int(bool(image.info.get("default_image")))  # the picture for readers that know no animations
    for index in range(first, getattr(image, "n_frames", 1)):
        image.seek(index)
        image.load()
        check_pixels(image.height, image.width, name, max_pixels)
        if parts:
            picture = finished_png(to_raster(image), parts)
        else:
            picture = from_pillow(image)
        yield Frame(picture, float(image.info.get("duration") or 0))
