"""Opens sets of images in ArrayRecord files with TFDS metadata: prepared sets by folder, and TFDS sets by name.

A set is a directory with dataset_info.json, which lists the splits and their shards, features.json and the shards.
`prepare` writes such directories, and so does TFDS with file_format=array_record. Reading them needs no TensorFlow.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np

from arbiscale_jax.errors import UserError

from . import metadata
from .folders import METADATA
from .metadata import listed
from .record_reader import ImageOf, Item, RecordReader, RecordSet
from .set_info import FORMAT, REMEDY, SetInfo, check_for_tfds, image_features, is_prepared, read_info, shard_paths

SUMMARY = "prepare.json"  # file in sets that data.prepare made
VAL_SPLITS = ("validation", "val", "test")  # the first of these that a set has is its validation split
HELD_OUT_EVERY = 20  # without a validation split, every 20th record of train is held out
PREFERRED = ("image", "hr")  # the image features that are taken first if there are several


class RecordOptions(NamedTuple):
    """Holds the options of sources that read records: prepared sets and TFDS sets."""

    tfds_dir: str = ""  # folder where TFDS keeps its sets; "" is $TFDS_DATA_DIR or ~/tensorflow_datasets
    image_feature: str = ""  # feature that holds the image; "" is one of PREFERRED or the only one


def open_prepared(root: str | Path, split: str, feature: str = "") -> RecordSet:
    """Opens a split of a prepared set with grain alone.

    Args:
      root: folder of the set.
      split: "train", "val" or "all", as in `sources.make_source`.
      feature: feature that holds the image; "" is one of PREFERRED or the only one.

    Raises:
      UserError: if there is no set, or it is incomplete, not in ArrayRecord files, or has no such image feature.
    """
    if not str(root):
        raise UserError("The data source prepared needs a path; give it as config.data.root (or val_root).")
    root = Path(root).expanduser()
    info, feature = read_info(root), _pick_feature(root, feature)
    _check_format(root, [info.file_format])
    name, hold_out = _pick_split(info.splits, split, root)
    records, paths = _open_shards(root, info, name)
    title = f"the prepared set {root} ({name})"
    fit, size = _prepared_as(root, name)
    indices = _indices(len(records), split, hold_out, together=fit == "tiles")
    read = RecordReader(records, ImageOf(feature), title)
    measure = read.measure if fit not in ("crop", "aspect") else lambda index: size  # every shorter side is `size`
    return RecordSet(indices, read, title, tuple(paths), measure, read.title_of)


def open_tfds(name: str, data_dir: str, split: str, feature: str = "") -> RecordSet:
    """Opens a split of a TFDS set with the data source of TFDS.

    Args:
      name: name of the set, such as lsun/bedroom or div2k/bicubic_x4:2.0.0, or its directory.
      data_dir: folder where TFDS keeps its sets; "" is $TFDS_DATA_DIR or ~/tensorflow_datasets.
      split: "train", "val" or "all", as in `sources.make_source`.
      feature: feature that holds the image; "" is one of PREFERRED or the only one.

    Raises:
      UserError: if TFDS is not installed, the set is damaged, or it does not exist in ArrayRecord files; then the
        message has the command that prepares it.
    """
    directory = _find_tfds(name, data_dir)
    info, feature = read_info(directory), _pick_feature(directory, feature)
    check_for_tfds(directory)
    try:
        import tensorflow_datasets as tfds
    except ImportError as e:
        raise UserError("The data source tfds needs the extra tfds; pip install 'arbiscale_jax[tfds]'.") from e
    try:
        builder: Any = tfds.builder_from_directory(directory)
        formats = [one.value for one in builder.info.available_file_formats()]
    except Exception as e:  # a damaged description may raise any error
        raise UserError(f"TFDS cannot open {directory} ({metadata.one_line(e)}); prepare it again.") from e
    _check_format(directory, formats)
    chosen, hold_out = _pick_split(info.splits, split, directory)
    shards, _ = _open_shards(directory, info, chosen)
    # TFDS would decode with Pillow as well, and warn about it
    decoders = {one: tfds.decode.SkipDecoding() for one in image_features(directory)}
    try:
        records = builder.as_data_source(split=chosen, decoders=decoders)
        total = len(records)
    except Exception as e:  # damaged shards do so as well
        why = metadata.one_line(e)
        raise UserError(f"The shards of {directory} cannot be read by TFDS ({why}); prepare it again.") from e
    if total != len(shards):
        raise UserError(
            f"TFDS finds {total} records in the split {chosen} of {directory}, whose shards hold {len(shards)}; "
            "prepare it again."
        )
    title, files = f"the TFDS set {name} ({chosen})", tuple(sorted(p for p in directory.iterdir() if p.is_file()))
    read = RecordReader(records, Item(feature), title)
    return RecordSet(_indices(total, split, hold_out), read, title, files, read.measure, read.title_of)


def _open_shards(directory: Path, info: SetInfo, split: str) -> tuple[Any, list[Path]]:
    """Returns the serialized records of a split, and its files.

    Raises:
      UserError: if a file is missing or damaged, or the number of records is not the one that the set states.
    """
    paths, told = shard_paths(directory, info, info.splits[split]), sum(info.splits[split].shard_lengths)
    if not paths:
        raise UserError(f"The split {split} of {directory / METADATA} has no shards (shardLengths); {REMEDY}.")
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(
            f"The prepared set {directory} lacks {len(missing)} shards, such as {missing[0].name}; copy it again."
        )
    try:
        records: Any = grain.sources.ArrayRecordDataSource([str(path) for path in paths])
        total = len(records)
    except (RuntimeError, ValueError, OSError) as e:
        why = metadata.one_line(e)
        raise UserError(f"The shards of the prepared set {directory} cannot be read ({why}); copy it again.") from e
    if total != told:
        raise UserError(
            f"The shards of split {split} hold {total} records and shardLengths in {directory / METADATA} say {told}; "
            f"{REMEDY}."
        )
    return records, paths


def _pick_feature(directory: Path, wanted: str) -> str:
    """Returns the name of the feature that holds the image, or raises UserError if it is unclear or missing."""
    found = image_features(directory)
    if wanted:
        if wanted not in found:
            has = listed(found) or "none"
            raise UserError(f"{directory} has no image feature {wanted!r} (data.image_feature); it has {has}.")
        return wanted
    if not found:
        raise UserError(f"{directory} has no image feature; give a set of images.")
    preferred = [name for name in PREFERRED if name in found]
    if not preferred and len(found) > 1:
        raise UserError(
            f"{directory} has several image features; name one as config.data.image_feature: {listed(found)}."
        )
    return (preferred or found)[0]


def _check_format(directory: Path, formats: list[str]) -> None:
    """Raises UserError if a set is not available in ArrayRecord files."""
    if FORMAT not in formats:
        raise UserError(
            f"{directory} is prepared as {', '.join(formats) or 'nothing known'}, which needs TensorFlow to be read; "
            f"convert it with 'tfds convert_format --dataset_version_dir={directory} --out_file_format={FORMAT}'."
        )


def _pick_split(splits, split: str, where: Path) -> tuple[str, bool]:
    """Returns the name that the set gives to a split, and whether its validation records have to be held out of it."""
    val = next((name for name in VAL_SPLITS if name in splits), None)
    if split == "val" and val:
        return val, False
    if "train" in splits:
        return "train", split != "all" and not val
    if len(splits) != 1:
        raise UserError(f"{where} has the splits {listed(splits)}, none of them train; prepare one.")
    return next(iter(splits)), split != "all"


def _prepared_as(root: Path, split: str) -> tuple[str, int]:
    """Returns (fit, size) of shards.Storage by which a split was prepared, or ("", 0) if another program made it."""
    made = metadata.read_if_any(root / SUMMARY, REMEDY)
    if split not in made.members():
        return "", 0
    plan = made.member(split).member("plan")
    return plan.member("fit").text(), plan.member("size").get(metadata.Entry.count, 0)


def _indices(total: int, split: str, hold_out: bool, together: bool = False) -> np.ndarray:
    """Returns which of `total` records belong to a split; with `together` the held-out ones are the last ones."""
    indices = np.arange(total)
    if not hold_out or total == 1:
        return indices
    is_val = indices % HELD_OUT_EVERY == min(HELD_OUT_EVERY, total) - 1
    if together:
        is_val = indices >= total - is_val.sum()
    return indices[is_val if split == "val" else ~is_val]


def _find_tfds(name: str, data_dir: str) -> Path:
    """Returns the directory of a TFDS set NAME[/CONFIG][:VERSION] below data_dir; without a version, the newest one."""
    if not name:
        raise UserError(
            "The data source tfds needs a name such as lsun/bedroom; give it as config.data.root or val_root."
        )
    if is_prepared(Path(name).expanduser()):
        return Path(name).expanduser()
    base = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    path, _, version = name.partition(":")
    found = [one.parent for depth in ("*", "*/*") for one in (base / path).glob(f"{depth}/{METADATA}")]
    found = [one for one in found if re.fullmatch(r"\d+\.\d+\.\d+", one.name) and version in ("", one.name)]
    if not found:
        raise UserError(
            f"The TFDS set {name} is not in {base} (config.data.tfds_dir or $TFDS_DATA_DIR says where); prepare it "
            f"once with 'pip install tensorflow-datasets tensorflow && tfds build {name} --file_format={FORMAT} "
            f"--data_dir={base}'."
        )
    configs = sorted({one.parent for one in found})
    if len(configs) > 1:
        names = ", ".join(f"{path}/{config.name}" for config in configs)
        raise UserError(f"The TFDS set {name} has several configs; name one: {names}.")
    return max(found, key=lambda one: tuple(map(int, one.name.split("."))))
