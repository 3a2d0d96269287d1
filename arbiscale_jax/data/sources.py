"""Sources of images by index: folders, prepared and TFDS sets, known data sets, and scikit-image's photographs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import read_image

from . import folders
from .catalog import DATASETS, locate
from .records import RecordSet, open_prepared, open_tfds

SOURCES = ("embedded", "folder", "prepared", "tfds", *DATASETS)
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


class Source:
    """Images by index, uint8 RGB [h, w, 3] (read-only), h and w varying; decoded ones are kept while there is room.

    An image that cannot be read is reported once a process, and the next one that can stands in for it: what an index
    gives depends on the files alone.
    """

    def __init__(
        self,
        names: Sequence,
        read: Callable[..., np.ndarray],
        title: str,
        cache_bytes: int = 2**30,
        files: Callable[[], Iterable[Path]] = tuple,
    ):
        self._names = names if isinstance(names, np.ndarray) else tuple(names)  # an array: numbers of records
        self._read, self._title, self._files = read, title, files
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
        """Returns the image's name: of an embedded photograph, the path below the folder, or the record's number."""
        return str(self._names[index])

    def stamps(self) -> list[tuple[int, int]]:
        """Returns size and time of change (ns) of each file that the images are read from: another picture, others."""
        found = (path.stat() for path in self._files())
        return [(one.st_size, one.st_mtime_ns) for one in found]

    def _keep(self, name: str, image: np.ndarray) -> None:
        if name not in self._decoded and image.nbytes <= self._room:
            self._room -= image.nbytes
            self._decoded[name] = image

    def __getstate__(self):  # a worker process decodes for itself
        room = self._room + sum(image.nbytes for image in self._decoded.values())
        return self.__dict__ | {"_decoded": {}, "_room": room}

    def __repr__(self) -> str:
        return f"Source({self._title}, {len(self)} images)"


def make_source(
    kind: str,
    root: str | Path | Sequence[str | Path] = "",
    split: str = "train",
    cache_bytes: int = 2**30,
    *,
    image_size: int = 0,
    split_file: str | Path = "",
    val_split_file: str | Path = "",
    tfds_dir: str = "",
    image_feature: str = "",
) -> Source:
    """Opens a source of images.

    Args: kind, one of SOURCES: "embedded" (scikit-image's photographs; validation: the cup of coffee); "folder" (root:
      a folder, or several joined, separated by commas; searched recursively for every extension that Pillow reads);
      "prepared" (root: a set written by data.prepare); "tfds" (root: a TFDS name, as lsun/bedroom); or the name of a
      known data set (root: where it and others lie, see catalog).
      split, "train", "val" or "all": what a source has no validation split for holds out a twentieth, a folder by a
      hash of the names; all holds nothing out of train. Of a folder with one image both splits are that image.
      cache_bytes, decoded images kept in memory at most; image_size, side of the images that will be cut out.
      split_file and val_split_file, of folders: text files of the names of train and val.
      tfds_dir, where TFDS keeps its sets; image_feature, of prepared and TFDS sets with several.
    Raises: UserError if kind or split is unknown, or the images are missing, or none of them is readable.
    """
    if split not in _EMBEDDED:
        raise UserError(f"Unknown split {split!r}; known are {', '.join(_EMBEDDED)}.")
    if kind not in SOURCES:
        raise UserError(f"Unknown data source {kind!r}; known are {', '.join(SOURCES)}.")
    if (split_file or val_split_file) and kind in ("embedded", "prepared", "tfds"):
        raise UserError(f"data.split_file and data.val_split_file split folders, not data.source={kind}; unset them.")
    if kind == "embedded":
        return Source(_EMBEDDED[split], _read_embedded, "scikit-image's photographs", cache_bytes)
    if kind in DATASETS:
        place = locate(kind, root, split, image_size)
        if place.kind == "prepared":
            if split_file or val_split_file:
                raise UserError(
                    f"data.split_file and data.val_split_file do not split the prepared set {place.root}; unset them, "
                    "or read the pictures with data.source=folder."
                )
            return _from_records(open_prepared(place.root, place.split, image_feature), cache_bytes)
        files = (split_file or place.split_file, val_split_file or place.val_split_file)
        if place.split == "all":  # validation has a folder of its own, and each list is of its own folder
            files = (val_split_file if split == "val" else files[0], "")
        return _from_folders(place.root, place.split, *files, cache_bytes)
    if kind == "folder":
        return _from_folders(root, split, split_file, val_split_file, cache_bytes)
    if kind == "tfds":
        return _from_records(open_tfds(str(root), tfds_dir, split, image_feature), cache_bytes)
    return _from_records(open_prepared(str(root), split, image_feature), cache_bytes)


def _from_folders(root, split: str, split_file, val_split_file, cache_bytes: int) -> Source:
    roots = folders.parse_roots(root)
    read, title, every = partial(_read_file, roots), folders.title(roots), folders.find_images(roots)
    names = folders.read_split(split_file, every) if split_file else every
    if val_split_file:
        val = folders.read_split(val_split_file, every)
        names = {"train": sorted(set(names) - set(val)), "val": val, "all": names}[split]
        if not names:
            raise UserError(f"The split file {val_split_file} leaves no image of the {title} to train on; shorten it.")
        split = "all"  # of these, nothing is held out
    names = folders.hold_out(names, lambda name: _try_to_read(read, name) is not None, split, title)
    return Source(names, read, f"The {title}", cache_bytes, partial(_paths, roots, names))


def _from_records(records: RecordSet, cache_bytes: int) -> Source:
    if not len(records.indices):
        raise UserError(f"{records.title[0].upper()}{records.title[1:]} holds no image; prepare it again.")
    title = records.title[0].upper() + records.title[1:]
    return Source(records.indices, records.read, title, cache_bytes, partial(tuple, records.files))


def _read_embedded(name: str) -> np.ndarray:
    import skimage.data

    image = getattr(skimage.data, name)()
    image = image[0] if isinstance(image, tuple) else image  # the stereo pair: left, right, disparity
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)  # h w 3


def _read_file(roots: Mapping[str, Path], name: str) -> np.ndarray:
    return read_image(folders.path_of(roots, name))


def _paths(roots: Mapping[str, Path], names: Sequence[str]) -> list[Path]:
    return [folders.path_of(roots, name) for name in names]


def _try_to_read(read: Callable[..., np.ndarray], name) -> np.ndarray | None:
    """Returns the image, or logs why there is none."""
    try:
        image = read(name)
    except UserError as e:
        folders.report(f"Skipped: {e}")
        return None
    image.setflags(write=False)
    return image
