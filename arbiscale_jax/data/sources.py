"""Opens sources of images: folders, prepared and TFDS sets, known data sets, and the photographs of scikit-image."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import read_image

from . import folders
from .catalog import DATASETS, locate
from .folders import SplitFiles
from .records import RecordOptions, RecordSet, open_prepared, open_tfds

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
_NO_SPLIT_FILES, _DEFAULT_RECORDS = SplitFiles(), RecordOptions()


class Source:
    """Returns images by index, as read-only uint8 RGB [h, w, 3] of any h and w, and keeps decoded ones while they fit.

    An image that cannot be read is reported once per process and replaced by the next readable one, so the image at an
    index depends on the files alone.

    Args:
      names: what `read` is called with, one for each image: names of files, or numbers of records as an array.
      read: decodes the image of a name.
      title: what the source is called in messages.
      cache_bytes: largest memory that decoded images take, in bytes.
      files: returns the paths of the files that hold the images.
    """

    def __init__(
        self,
        names: Sequence | np.ndarray,
        read: Callable[..., np.ndarray],
        title: str,
        cache_bytes: int = 2**30,
        files: Callable[[], Iterable[Path]] = tuple,
    ):
        self._names = names if isinstance(names, np.ndarray) else tuple(names)  # an array holds numbers of records
        self._read, self._title, self._files = read, title, files
        self._room, self._decoded = cache_bytes, {}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns an image, or the next readable one; raises UserError if no image can be read any more."""
        for i in range(index, index + len(self)):
            image = self.read(i % len(self))
            if image is not None:
                return image
        raise UserError(f"{self._title} holds no image that can be read any more; give a folder with intact ones.")

    def read(self, index: int) -> np.ndarray | None:
        """Returns the image at an index itself, or reports once that it cannot be read and returns None."""
        name = self._names[index]
        image = self._decoded.get(name)
        if image is None:
            image = _try_to_read(self._read, name)
        if image is not None:
            self._keep(name, image)
        return image

    def name(self, index: int) -> str:
        """Returns the name of an image: a path below the folder, the number of a record, or a name in scikit-image."""
        return str(self._names[index])

    def stamps(self) -> list[tuple[int, int]]:
        """Returns (bytes, time of last change in ns) of each file that holds images; these show when a file changes."""
        found = (path.stat() for path in self._files())
        return [(one.st_size, one.st_mtime_ns) for one in found]

    def _keep(self, name: str, image: np.ndarray) -> None:
        if name not in self._decoded and image.nbytes <= self._room:
            self._room -= image.nbytes
            self._decoded[name] = image

    def __getstate__(self):  # a worker process keeps decoded images of its own
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
    split_files: SplitFiles = _NO_SPLIT_FILES,
    records: RecordOptions = _DEFAULT_RECORDS,
) -> Source:
    """Opens a source of images.

    Args:
      kind: one of SOURCES: "embedded" (the photographs that come with scikit-image; validation has the cup of coffee),
        "folder", "prepared", "tfds", or the name of a known data set (see catalog).
      root: for "folder" a folder, or several joined, as a sequence or separated by commas, which are searched
        recursively for every extension that Pillow reads; for "prepared" a set written by data.prepare; for "tfds" a
        TFDS name such as lsun/bedroom; for a known data set the folder where it and others lie.
      split: "train", "val" or "all". A source without a validation split holds out a twentieth of its images, a folder
        by a hash of their names; "all" holds nothing out. With a single image both splits are that image.
      cache_bytes: largest memory that decoded images take, in bytes.
      image_size: side in pixels of the images that will be cut out; a known data set is read in a size that suffices.
      split_files: lists of the images of each split; only for folders and known data sets.
      records: options of prepared and TFDS sets.

    Raises:
      UserError: if kind or split is unknown, the images are missing, or none of them is readable.
    """
    if split not in _EMBEDDED:
        raise UserError(f"Unknown split {split!r}; known are {', '.join(_EMBEDDED)}.")
    if kind not in SOURCES:
        raise UserError(f"Unknown data source {kind!r}; known are {', '.join(SOURCES)}.")
    if any(split_files) and kind in ("embedded", "prepared", "tfds"):
        raise UserError(f"data.split_file and data.val_split_file split folders, not data.source={kind}; unset them.")
    if kind == "embedded":
        return Source(_EMBEDDED[split], _read_embedded, "scikit-image's photographs", cache_bytes)
    if kind != "folder" and not isinstance(root, str | Path):
        raise UserError(f"data.source={kind} reads one root, got {root!r}; data.source=folder joins several.")
    if kind in DATASETS:
        place = locate(kind, str(root), split, image_size)
        if place.kind == "prepared":
            if any(split_files):
                raise UserError(
                    f"data.split_file and data.val_split_file do not split the prepared set {place.root}; unset them, "
                    "or read the pictures with data.source=folder."
                )
            return _from_records(open_prepared(str(place.root), place.split, records.image_feature), cache_bytes)
        known = place.split_files
        files = SplitFiles(split_files.train or known.train, split_files.val or known.val)
        if place.split == "all":  # validation has a folder of its own, and each list is of its own folder
            files = SplitFiles(split_files.val if split == "val" else files.train)
        return _from_folders(place.root, place.split, files, cache_bytes)
    if kind == "folder":
        return _from_folders(root, split, split_files, cache_bytes)
    if kind == "tfds":
        return _from_records(open_tfds(str(root), records.tfds_dir, split, records.image_feature), cache_bytes)
    return _from_records(open_prepared(str(root), split, records.image_feature), cache_bytes)


def _from_folders(root, split: str, files: SplitFiles, cache_bytes: int) -> Source:
    """Opens a split of one or several folders."""
    roots = folders.parse_roots(root)
    read, title, every = partial(_read_file, roots), folders.title(roots), folders.find_images(roots)
    names = folders.read_split(files.train, every, roots) if files.train else every
    if files.val:
        val = folders.read_split(files.val, every, roots)
        names = {"train": sorted(set(names) - set(val)), "val": val, "all": names}[split]
        if not names:
            raise UserError(f"The split file {files.val} leaves no image of the {title} to train on; shorten it.")
        split = "all"  # the list has made the split
    names = folders.hold_out(names, lambda name: _try_to_read(read, name) is not None, split, title)
    return Source(names, read, f"The {title}", cache_bytes, partial(_paths, roots, names))


def _from_records(records: RecordSet, cache_bytes: int) -> Source:
    """Makes a source of opened records."""
    if not len(records.indices):
        raise UserError(f"{records.title[0].upper()}{records.title[1:]} holds no image; prepare it again.")
    title = records.title[0].upper() + records.title[1:]
    return Source(records.indices, records.read, title, cache_bytes, partial(tuple, records.files))


def _read_embedded(name: str) -> np.ndarray:
    """Returns a photograph of scikit-image in three channels."""
    import skimage.data

    image = getattr(skimage.data, name)()
    image = image[0] if isinstance(image, tuple) else image  # the stereo pair is (left, right, disparity)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)  # h w 3


def _read_file(roots: Mapping[str, Path], name: str) -> np.ndarray:
    return read_image(folders.path_of(roots, name))


def _paths(roots: Mapping[str, Path], names: Sequence[str]) -> list[Path]:
    return [folders.path_of(roots, name) for name in names]


def _try_to_read(read: Callable[..., np.ndarray], name) -> np.ndarray | None:
    """Returns an image, or logs why it cannot be read and returns None."""
    try:
        image = read(name)
    except UserError as e:
        folders.report(f"Skipped: {e}")
        return None
    image.setflags(write=False)
    return image
