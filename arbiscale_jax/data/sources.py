"""Sources of images: a folder of the user's, and the photographs that scikit-image ships."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import read_image

SOURCES = ("embedded", "folder")
HELD_OUT = 0.05  # of a folder's images, at least one, are its validation split
_EMBEDDED = {
    "train": (
        "astronaut",
        "brick",
        "camera",
        "chelsea",
        "grass",
        "gravel",
        "hubble_deep_field",
        "immunohistochemistry",
        "retina",
        "rocket",
        "stereo_motorcycle",
    ),
    "val": ("coffee",),
}
_EMBEDDED["all"] = _EMBEDDED["train"] + _EMBEDDED["val"]
_reported = set()  # what this process has logged, so that it is logged once

logger = logging.getLogger(__name__)


class Source:
    """Images by index, uint8 RGB [h, w, 3] (read-only), h and w varying; decoded ones are kept while there is room.

    An image that cannot be read is reported once a process, and the next one that can stands in for it: what an index
    gives depends on the files alone.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], np.ndarray], title: str, cache_bytes: int = 2**30):
        self._names, self._read, self._title = tuple(names), read, title
        self._room, self._decoded = cache_bytes, {}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> np.ndarray:
        """Raises: UserError if no image is left that can be read."""
        for i in range(index, index + len(self)):
            image = self.read(i % len(self))
            if image is not None:
                return image
        raise UserError(f"{self._title} holds no image that can be read any more; give a folder with intact ones.")

    def read(self, index: int) -> np.ndarray | None:
        """Returns the very image of this index, None (reported once) where it cannot be read."""
        name = self._names[index]
        image = self._decoded.get(name)
        if image is None:
            image = _try_to_read(self._read, name)
        if image is not None:
            self._keep(name, image)
        return image

    def name(self, index: int) -> str:
        """Returns the image's name: of an embedded photograph, or the path below the folder."""
        return self._names[index]

    def _keep(self, name: str, image: np.ndarray) -> None:
        if name not in self._decoded and image.nbytes <= self._room:
            self._room -= image.nbytes
            self._decoded[name] = image

    def __getstate__(self):  # a worker process decodes for itself
        room = self._room + sum(image.nbytes for image in self._decoded.values())
        return self.__dict__ | {"_decoded": {}, "_room": room}

    def __repr__(self) -> str:
        return f"Source({self._title}, {len(self)} images)"


def make_source(kind: str, root: str | Path = "", split: str = "train", cache_bytes: int = 2**30) -> Source:
    """Opens a source of images.

    Args: kind, "embedded" (scikit-image's photographs; validation: the cup of coffee) or "folder"; root, the folder,
      searched recursively for every extension that Pillow reads; split, "train", "val" or "all"; cache_bytes, decoded
      images kept in memory at most. A folder's validation split is a twentieth of its images, by a hash of their
      names; of a folder with one image both splits are that image.
    Raises: UserError if kind or split is unknown, or the folder is missing, empty or without a readable image.
    """
    if split not in _EMBEDDED:
        raise UserError(f"Unknown split {split!r}; known are {', '.join(_EMBEDDED)}.")
    if kind == "embedded":
        return Source(_EMBEDDED[split], _read_embedded, "scikit-image's photographs", cache_bytes)
    if kind == "folder":
        root = Path(root).expanduser() if str(root) else None
        read = partial(_read_file, root)
        return Source(_split_folder(_find_images(root), read, root, split), read, f"The folder {root}", cache_bytes)
    raise UserError(f"Unknown data source {kind!r}; known are {', '.join(SOURCES)}.")


def _read_embedded(name: str) -> np.ndarray:
    import skimage.data

    image = getattr(skimage.data, name)()
    image = image[0] if isinstance(image, tuple) else image  # the stereo pair: left, right, disparity
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)  # h w 3


def _read_file(root: Path, name: str) -> np.ndarray:
    return read_image(root / name)


def _try_to_read(read: Callable[[str], np.ndarray], name: str) -> np.ndarray | None:
    """Returns the image, or logs why there is none."""
    try:
        image = read(name)
    except UserError as e:
        _report(f"Skipped: {e}")
        return None
    image.setflags(write=False)
    return image


def _report(message: str) -> None:
    if message not in _reported:
        _reported.add(message)
        logger.warning("%s", message)


def _find_images(root: Path | None) -> list[str]:
    """Returns the paths below root, with forward slashes and sorted, that have an extension which Pillow reads."""
    if root is None:
        raise UserError("The data source folder needs a path; give it as config.data.root (or val_root).")
    if not root.is_dir():
        raise UserError(f"The image folder {root} {'is a file' if root.exists() else 'does not exist'}; give a folder.")
    formats = Image.registered_extensions()
    known = {extension for extension, name in formats.items() if name in Image.OPEN}
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        found += [(below / name).as_posix() for name in files if _is_image(name, known)]
    if not found:
        raise UserError(f"The image folder {root} holds no image; give a folder with PNG, JPEG or similar files.")
    return sorted(found)


def _is_image(name: str, extensions: set[str]) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in extensions


def _split_folder(names: list[str], read: Callable[[str], np.ndarray], root: Path, split: str) -> list[str]:
    """Returns the names of a split that has at least one readable image, having decoded no more than that takes."""

    def first_readable(candidates):
        return next((i for i, name in enumerate(candidates) if _try_to_read(read, name) is not None), None)

    ranked = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    first = first_readable(ranked)
    if first is None:
        raise UserError(f"The image folder {root} holds {len(names)} images, none of them readable; give intact ones.")
    if split == "all":
        return names
    num_val = max(first + 1, round(HELD_OUT * len(names)))
    if first_readable(ranked[num_val:]) is None:
        _report(f"The folder {root} has one readable image: validation uses the image that is trained on.")
        return names
    return sorted(ranked[:num_val] if split == "val" else ranked[num_val:])
