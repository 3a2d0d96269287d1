"""Lists the data sets of the paper's experiments: where they are looked for, and how to get and prepare them.

All data sets lie below one folder: data.root, or $ARBISCALE_DATA, or ./data. Each set is first looked for as a prepared
set called NAME_SIDE, such as ffhq_256, whose pictures have at least the wanted side, and then in the layout of its
publisher. The first part of a publisher's path may be missing, so data.root may also be the folder of one data set.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from arbiscale_jax.errors import UserError

from .folders import SplitFiles
from .records import VAL_SPLITS
from .set_info import is_prepared, read_info

ROOT_VARIABLE, DEFAULT_ROOT = "ARBISCALE_DATA", "data"
NATIVE = 2**30  # stands for the side of pictures that keep their original size


class DataSet(NamedTuple):
    """Describes a known data set; paths are relative to the root."""

    title: str  # name that messages show
    train: tuple[Mapping[str, int], ...]  # for each part of the set, the folders where it may be: {path: side}
    get: str  # how to download it, for messages
    inputs: tuple[str, ...]  # folders from which data.prepare makes a prepared set
    options: str  # options of data.prepare; {size} stands for the side
    val: tuple[str, ...] = ()  # folders where the validation pictures may be; without one, some of train are held out
    train_list: tuple[str, ...] = ()  # paths where a text file with the names of the training split may be
    val_list: tuple[str, ...] = ()  # the same for the validation split


class Place(NamedTuple):
    """Says where a split of a known data set is, as arguments of sources.make_source."""

    kind: str  # "folder" or "prepared"
    root: tuple[str, ...] | str  # one folder, or several that are joined
    split: str  # "train", "val" or "all"
    split_files: SplitFiles = SplitFiles()  # lists that came with the data set


def _lsun(category: str, plural: str, tfds: str = "") -> DataSet:
    """Describes a category of LSUN, whose folder may have several names."""
    names = (f"{category}_train", plural, category)
    tfds = tfds or category
    return DataSet(
        title=f"LSUN {category}",
        train=({f"lsun/{name}": NATIVE for name in names},),
        val=(f"lsun/{category}_val",),
        train_list=tuple(f"lsun/{name}_train.txt" for name in (plural, category)),
        val_list=tuple(f"lsun/{name}_val.txt" for name in (plural, category)),
        get=f"download {category} with the tools of the LSUN project page (fyu/lsun on GitHub) and export the LMDB to "
        f"image files with their export command into lsun/{category}_train; a TFDS copy is read with "
        f"--config.data.source=tfds --config.data.root=lsun/{tfds}",
        inputs=(f"lsun/{category}_train",),
        options="--size {size} --format jpeg",
    )


DATASETS = {
    "ffhq": DataSet(
        title="Flickr-Faces-HQ",
        train=({"ffhq/thumbnails128x128": 128, "ffhq/images1024x1024": 1024},),
        train_list=("ffhq/ffhqtrain.txt",),
        val_list=("ffhq/ffhqvalidation.txt",),
        get="download images1024x1024 (thumbnails128x128 are enough for 128 pixels) with the script of the FFHQ "
        "project page (NVlabs/ffhq-dataset on GitHub) into ffhq/",
        inputs=("ffhq/images1024x1024",),
        options="--size {size}",
    ),
    "celeba_hq": DataSet(
        title="CelebA-HQ",
        train=({"celeba_hq/celeba_hq_256": 256, "CelebAMask-HQ/CelebA-HQ-img": 1024, "celeba_hq": NATIVE},),
        get="download CelebAMask-HQ from its project page (switchablenorms/CelebAMask-HQ on GitHub), which contains "
        "CelebA-HQ-img; a TFDS copy is read with --config.data.source=tfds --config.data.root=celeb_a_hq/256",
        inputs=("CelebAMask-HQ/CelebA-HQ-img",),
        options="--size {size}",
    ),
    "lsun_bedroom": _lsun("bedroom", "bedrooms"),
    "lsun_church": _lsun("church_outdoor", "churches"),
    "lsun_tower": _lsun("tower", "towers"),
    "div2k": DataSet(
        title="DIV2K",
        train=({"DIV2K/DIV2K_train_HR": NATIVE},),
        val=("DIV2K/DIV2K_valid_HR",),
        get="download DIV2K_train_HR and DIV2K_valid_HR from the DIV2K project page (NTIRE 2017) into DIV2K/",
        inputs=("DIV2K/DIV2K_train_HR",),
        options="--size 480 --fit tiles",
    ),
    "df2k": DataSet(
        title="DIV2K and Flickr2K",
        train=({"DIV2K/DIV2K_train_HR": NATIVE}, {"Flickr2K/Flickr2K_HR": NATIVE, "Flickr2K": NATIVE}),
        val=("DIV2K/DIV2K_valid_HR",),
        get="download DIV2K_train_HR and DIV2K_valid_HR from the DIV2K project page (NTIRE 2017) into DIV2K/, and "
        "Flickr2K from the project page of EDSR (limbee/NTIRE2017 on GitHub) into Flickr2K/",
        inputs=("DIV2K/DIV2K_train_HR", "Flickr2K/Flickr2K_HR"),
        options="--size 480 --fit tiles",
    ),
}


def locate(name: str, root: str | Path, split: str, side: int) -> Place:
    """Finds a split of a known data set.

    Args:
      name: one of DATASETS.
      root: the folder of all data sets or of this one; "" is $ARBISCALE_DATA or ./data.
      split: "train", "val" or "all".
      side: least side of the pictures in pixels; the smallest pictures that suffice are taken.

    Returns:
      Where the split is.

    Raises:
      UserError: if the set is not there. The message says where it was looked for, how to get it and how to prepare it.
    """
    one, base = DATASETS[name], Path(root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).expanduser()
    looked: list[Path] = []
    prepared = _prepared(name, base, side, looked)
    parts = [] if prepared else [_best(alternatives, base, side, looked) for alternatives in one.train]
    if not prepared and None in parts:
        raise UserError(_missing(name, base, looked, side))
    val = next((path for path in _places(base, one.val) if path.is_dir()), None)
    if prepared:
        own_val = any(name in VAL_SPLITS for name in read_info(prepared).splits)
        if own_val or val is None:
            return Place("prepared", str(prepared), split)
        return Place("folder", str(val), "all") if split == "val" else Place("prepared", str(prepared), "all")
    roots = tuple(map(str, parts)) if len(parts) > 1 else str(parts[0])
    files = SplitFiles(*(_first_file(base, places) for places in (one.train_list, one.val_list)))
    if val is not None:
        if split == "val":
            return Place("folder", str(val), "all")
        return Place("folder", roots, "all", files._replace(val=""))
    return Place("folder", roots, split, files)


def _places(base: Path, paths) -> Iterator[Path]:
    """Yields each path below `base`, and then the same path without its first part."""
    for path in paths:
        yield base / path
        if len(parts := Path(path).parts) > 1:
            yield base.joinpath(*parts[1:])


def _prepared(name: str, base: Path, side: int, looked: list[Path]) -> Path | None:
    """Returns the prepared set with the smallest pictures that suffice, and adds to `looked` where it was expected."""
    if is_prepared(base):
        return base
    looked.append(base / f"{name}_{side}")
    sides = {path: re.fullmatch(rf"{name}_(\d+)", path.name) for path in base.glob(f"{name}_*") if is_prepared(path)}
    found = {int(match[1]): path for path, match in sides.items() if match and int(match[1]) >= side}
    return found[min(found)] if found else None


def _best(alternatives: Mapping[str, int], base: Path, side: int, looked: list[Path]) -> Path | None:
    """Returns the first folder whose pictures are large enough, and adds every folder that was tried to `looked`."""
    for path, its_side in alternatives.items():
        if its_side >= side:
            for place in _places(base, (path,)):
                looked.append(place)
                if place.is_dir():
                    return place
    return None


def _first_file(base: Path, paths: tuple[str, ...]) -> str:
    return next((str(path) for path in _places(base, paths) if path.is_file()), "")


def _missing(name: str, base: Path, looked: list[Path], side: int) -> str:
    """Returns the message for a data set that was not found."""
    one, tried = DATASETS[name], ", ".join(str(path) for path in looked if not path.is_dir())
    source, options = ",".join(str(base / path) for path in one.inputs), one.options.format(size=side)
    output = base / f"{name}_{re.findall('size ([0-9]+)', options)[0]}"
    return (
        f"The data set {name} ({one.title}) was not found below {base}: looked for {tried}. To get it, {one.get}; "
        f"to read it faster, prepare it with 'python -m arbiscale_jax.data.prepare --input {source} --output {output} "
        f"{options}'. Another place is given as config.data.root or ${ROOT_VARIABLE}; any other folder of images as "
        "--config.data.source=folder --config.data.root=FOLDER."
    )
