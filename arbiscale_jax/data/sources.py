"""Opens sources of images: folders, prepared and TFDS sets, known data sets, and the photographs of scikit-image."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import read_image

from . import folders, lr_pairs
from .catalog import DATASETS, locate
from .folders import SplitFiles
from .records import RecordOptions, RecordSet, open_prepared, open_tfds
from .small_pictures import large_enough, measure_file, without_small
from .source import Source, try_to_read

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


class SourceOptions(NamedTuple):
    """Says which images a source has and how they are read."""

    image_size: int = 0  # side of the images that will be cut out; a known data set is read in a size that suffices
    split_files: SplitFiles = SplitFiles()  # lists of the images of each split; only for folders and known data sets
    records: RecordOptions = RecordOptions()  # options of prepared and TFDS sets
    least: int = 0  # images whose shorter side is below this are left out; 0 leaves none out
    lr_root: str | Path | Sequence[str | Path] = ""  # for "folder": folders of LR pictures; "" makes no pairs


_DEFAULTS = SourceOptions()


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
    return open_source(kind, root, split, cache_bytes, SourceOptions(image_size, split_files, records))


def open_source(
    kind: str,
    root: str | Path | Sequence[str | Path] = "",
    split: str = "train",
    cache_bytes: int = 2**30,
    options: SourceOptions = _DEFAULTS,
) -> Source:
    """Opens a source of images, or of pairs of an image and its LR picture; see `make_source`.

    Args:
      kind: as in `make_source`, like root, split and cache_bytes.
      root: folder, folders or name.
      split: "train", "val" or "all".
      cache_bytes: largest memory of decoded images.
      options: which images it has.

    Raises:
      UserError: as `make_source` does, or if no image is large enough or has an LR picture.
    """
    split_files, records = options.split_files, options.records
    if split not in _EMBEDDED:
        raise UserError(f"Unknown split {split!r}; known are {', '.join(_EMBEDDED)}.")
    if kind not in SOURCES:
        raise UserError(f"Unknown data source {kind!r}; known are {', '.join(SOURCES)}.")
    if any(split_files) and kind in ("embedded", "prepared", "tfds"):
        raise UserError(f"data.split_file and data.val_split_file split folders, not data.source={kind}; unset them.")
    if options.lr_root and kind != "folder":
        raise UserError(f"LR pictures are paired with those of folders, not with data.source={kind}; give a folder.")
    if kind == "embedded":
        return Source(_EMBEDDED[split], _read_embedded, "scikit-image's photographs", cache_bytes)
    if kind != "folder" and not isinstance(root, str | Path):
        raise UserError(f"data.source={kind} reads one root, got {root!r}; data.source=folder joins several.")
    if kind in DATASETS:
        place = locate(kind, str(root), split, options.image_size)
        if place.kind == "prepared":
            if any(split_files):
                raise UserError(
                    f"data.split_file and data.val_split_file do not split the prepared set {place.root}; unset them, "
                    "or read the pictures with data.source=folder."
                )
            opened = open_prepared(str(place.root), place.split, records.image_feature)
            return _from_records(opened, cache_bytes, options.least)
        known = place.split_files
        files = SplitFiles(split_files.train or known.train, split_files.val or known.val)
        if place.split == "all":  # validation has a folder of its own, and each list is of its own folder
            files = SplitFiles(split_files.val if split == "val" else files.train)
        return _from_folders(place.root, place.split, cache_bytes, options._replace(split_files=files))
    if kind == "folder":
        return _from_folders(root, split, cache_bytes, options)
    if kind == "tfds":
        opened = open_tfds(str(root), records.tfds_dir, split, records.image_feature)
    else:
        opened = open_prepared(str(root), split, records.image_feature)
    return _from_records(opened, cache_bytes, options.least)


def _from_folders(root, split: str, cache_bytes: int, options: SourceOptions) -> Source:
    """Opens a split of one or several folders."""
    roots, files = folders.parse_roots(root), options.split_files
    title, every = folders.title(roots), folders.find_images(roots)
    read, paths = partial(_read_file, roots), partial(folders.path_of, roots)
    names = folders.read_split(files.train, every, roots) if files.train else every
    if files.val:
        val = folders.read_split(files.val, every, roots)
        names = {"train": sorted(set(names) - set(val)), "val": val, "all": names}[split]
        if not names:
            raise UserError(f"The split file {files.val} leaves no image of the {title} to train on; shorten it.")
        split = "all"  # the list has made the split
    lr_of = _no_lr_picture
    if options.lr_root:
        lr_roots, small = lr_pairs.pair_up(roots, names, options.lr_root)
        names = [name for name in names if name in small]
        read = partial(lr_pairs.read_pair, read=read, small=small, read_lr=partial(_read_file, lr_roots))
        lr_of = partial(_lr_pictures, lr_roots, small)
    names = without_small(names, lambda name: measure_file(paths(name)), options.least, f"the {title}")
    if options.least:
        read = partial(large_enough, read=read, least=options.least, title=f"the {title}")
    names = folders.hold_out(names, lambda name: try_to_read(read, name) is not None, split, title)
    return Source(names, read, f"The {title}", cache_bytes, partial(_paths, roots, names, lr_of))


def _from_records(records: RecordSet, cache_bytes: int, least: int) -> Source:
    """Makes a source of opened records."""
    title = records.title[0].upper() + records.title[1:]
    if not len(records.indices):
        raise UserError(f"{title} holds no image; prepare it again.")
    indices = without_small(records.indices, records.measure, least, records.title)
    read = partial(large_enough, read=records.read, least=least, title=records.title) if least else records.read
    return Source(indices, read, title, cache_bytes, partial(tuple, records.files), records.title_of)


def _read_embedded(name: str) -> np.ndarray:
    """Returns a photograph of scikit-image in three channels."""
    import skimage.data

    image = getattr(skimage.data, name)()
    image = image[0] if isinstance(image, tuple) else image  # the stereo pair is (left, right, disparity)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)  # h w 3


def _read_file(roots: Mapping[str, Path], name: str) -> np.ndarray:
    return read_image(folders.path_of(roots, name))


def _paths(roots: Mapping[str, Path], names: Sequence[str], lr_of: Callable[[str], list[Path]]) -> list[Path]:
    return [path for name in names for path in (folders.path_of(roots, name), *lr_of(name))]


def _no_lr_picture(name: str) -> list[Path]:
    return []


def _lr_pictures(lr_roots: Mapping[str, Path], small: Mapping[str, str], name: str) -> list[Path]:
    return [folders.path_of(lr_roots, small[name])]
