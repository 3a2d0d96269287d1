"""The data sets of the paper's experiments: where they are looked for, how to get and prepare them.

Everything lies below one folder: data.root, else $ARBISCALE_DATA, else ./data. Each set is looked for as a prepared
one (NAME_SIDE, as ffhq_256, with pictures of at least the wanted side), then as its publisher lays it out; the first
part of such a path may be left out, so that data.root may also be the set's own folder.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from arbiscale_jax.errors import UserError

from .records import VAL_SPLITS, is_prepared, read_info

ROOT_VARIABLE, DEFAULT_ROOT = "ARBISCALE_DATA", "data"
NATIVE = 2**30  # side of pictures that are as large as they come


class DataSet(NamedTuple):
    """A known data set; paths are relative to the root."""

    title: str
    train: tuple[Mapping[str, int], ...]  # its parts, all joined; of each the folders it may be in: path -> side
    get: str  # where it comes from
    inputs: tuple[str, ...]  # what data.prepare makes a prepared set of, and its options, the size as {size}
    options: str
    val: tuple[str, ...] = ()  # where the validation pictures may be; (): some of train are held out
    train_list: tuple[str, ...] = ()  # where the text file with the training split may be
    val_list: tuple[str, ...] = ()


class Place(NamedTuple):
    """Where a split of a known set is: arguments of sources.make_source."""

    kind: str
    root: tuple[str, ...] | str
    split: str
    split_file: str = ""
    val_split_file: str = ""


def _lsun(category: str, plural: str, tfds: str = "") -> DataSet:
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
    """Finds a split of the known data set `name`.

    Args: root, the folder of all data sets or of this one, default $ARBISCALE_DATA or ./data; split, train, val or all;
      side, of the pictures that are wanted at least: the smallest that suffice are taken.
    Raises: UserError saying where the set was looked for, how to get it and how to prepare it.
    """
    one, base = DATASETS[name], Path(root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).expanduser()
    looked: list[Path] = []
    prepared = _prepared(name, base, side, looked)
    parts = [] if prepared else [_best(alternatives, base, side, looked) for alternatives in one.train]
    if not prepared and None in parts:
        raise UserError(_missing(name, base, looked, side))
    val = next((path for path in _places(base, one.val) if path.is_dir()), None)
    if prepared:
        own_val = any(split["name"] in VAL_SPLITS for split in read_info(prepared).get("splits", ()))
        if own_val or val is None:
            return Place("prepared", str(prepared), split)
        return Place("folder", str(val), "all") if split == "val" else Place("prepared", str(prepared), "all")
    roots = tuple(map(str, parts)) if len(parts) > 1 else str(parts[0])
    train_list, val_list = (_first_file(base, places) for places in (one.train_list, one.val_list))
    if val is not None:
        return Place("folder", str(val), "all") if split == "val" else Place("folder", roots, "all", train_list)
    return Place("folder", roots, split, train_list, val_list)


def _places(base: Path, paths) -> Iterator[Path]:
    """Yields each path below `base`, then the same without its first part."""
    for path in paths:
        yield base / path
        if len(parts := Path(path).parts) > 1:
            yield base.joinpath(*parts[1:])


def _prepared(name: str, base: Path, side: int, looked: list[Path]) -> Path | None:
    """Returns the prepared set with the smallest pictures that suffice."""
    if is_prepared(base):
        return base
    looked.append(base / f"{name}_{side}")
    sides = {path: re.fullmatch(rf"{name}_(\d+)", path.name) for path in base.glob(f"{name}_*") if is_prepared(path)}
    found = {int(match[1]): path for path, match in sides.items() if match and int(match[1]) >= side}
    return found[min(found)] if found else None


def _best(alternatives: Mapping[str, int], base: Path, side: int, looked: list[Path]) -> Path | None:
    """Returns the first folder with pictures that are large enough."""
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
    one, tried = DATASETS[name], ", ".join(str(path) for path in looked if not path.is_dir())
    source, options = ",".join(str(base / path) for path in one.inputs), one.options.format(size=side)
    output = base / f"{name}_{re.search('size ([0-9]+)', options)[1]}"
    return (
        f"The data set {name} ({one.title}) was not found below {base}: looked for {tried}. To get it, {one.get}; "
        f"to read it faster, prepare it with 'python -m arbiscale_jax.data.prepare --input {source} --output {output} "
        f"{options}'. Another place is given as config.data.root or ${ROOT_VARIABLE}; any other folder of images as "
        "--config.data.source=folder --config.data.root=FOLDER."
    )
