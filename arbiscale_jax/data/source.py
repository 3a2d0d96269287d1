"""Defines a source of images: images by index, which keeps decoded ones and gets over files that cannot be read."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arbiscale_jax.errors import UserError

from . import folders


class Source:
    """Returns images by index, as read-only uint8 RGB [h, w, 3] of any h and w, and keeps decoded ones while they fit.

    The elements of a source of pairs are `lr_pairs.PicturePair` instead. An image that cannot be read is reported once
    per process and replaced by the next readable one, so the image at an index depends on the files alone.

    Args:
      names: what `read` is called with, one for each image: names of files, or numbers of records as an array.
      read: decodes the image of a name.
      title: what the source is called in messages.
      cache_bytes: largest memory that decoded images take, in bytes.
      files: returns the paths of the files that hold the images.
      title_of: returns the name that an image had as a file, where `names` are numbers of records; by default `names`
        are such names themselves.
    """

    def __init__(
        self,
        names: Sequence | np.ndarray,
        read: Callable[..., Any],
        title: str,
        cache_bytes: int = 2**30,
        files: Callable[[], Iterable[Path]] = tuple,
        title_of: Callable[[Any], str] = str,
    ):
        self._names = names if isinstance(names, np.ndarray) else tuple(names)  # an array holds numbers of records
        self._read, self._title, self._files, self._title_of = read, title, files, title_of
        self._room, self._decoded = cache_bytes, {}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Any:
        """Returns an image, or the next readable one; raises UserError if no image can be read any more."""
        return self.readable(index)[1]

    def readable(self, index: int) -> tuple[int, Any]:
        """Returns the index and the image of the first readable one from `index` on; errors as for an element."""
        for i in range(index, index + len(self)):
            image = self.read(i % len(self))
            if image is not None:
                return i % len(self), image
        raise UserError(f"{self._title} holds no image that can be read any more; give a folder with intact ones.")

    def read(self, index: int) -> Any:
        """Returns the image at an index itself, or reports once that it cannot be read and returns None."""
        name = self._names[index]
        image = self._decoded.get(name)
        if image is None:
            image = try_to_read(self._read, name)
        if image is not None:
            self._keep(name, image)
        return image

    def name(self, index: int) -> str:
        """Returns the name of an image: a path below the folder, the number of a record, or a name in scikit-image."""
        return str(self._names[index])

    def titles(self) -> list[str]:
        """Returns the names that the images had as files, also where they are records of a prepared set."""
        return [self._title_of(name) for name in self._names]

    def stamps(self) -> list[tuple[int, int]]:
        """Returns (bytes, time of last change in ns) of each file that holds images; these show when a file changes."""
        found = (path.stat() for path in self._files())
        return [(one.st_size, one.st_mtime_ns) for one in found]

    def _keep(self, name: str, image) -> None:
        size = sum(array.nbytes for array in _arrays(image))
        if name not in self._decoded and size <= self._room:
            self._room -= size
            self._decoded[name] = image

    def __getstate__(self):  # a worker process keeps decoded images of its own
        room = self._room + sum(array.nbytes for image in self._decoded.values() for array in _arrays(image))
        return self.__dict__ | {"_decoded": {}, "_room": room}

    def __repr__(self) -> str:
        return f"Source({self._title}, {len(self)} images)"


def _arrays(image) -> list[np.ndarray]:
    """Lists the arrays of an image or of a pair of images."""
    return [x for x in (image if isinstance(image, tuple) else (image,)) if isinstance(x, np.ndarray)]


def try_to_read(read: Callable[..., Any], name) -> Any:
    """Returns an image, or logs why it cannot be read and returns None."""
    try:
        image = read(name)
    except UserError as e:
        folders.report(f"Skipped: {e}")
        return None
    for array in _arrays(image):
        array.setflags(write=False)
    return image
