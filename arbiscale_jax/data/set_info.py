"""Reads the metadata of a set of records, as TFDS writes it: dataset_info.json (splits, shards) and features.json.

Both files may come from untrusted sources. Everything that is read from them is checked before another file is opened,
and no name in them can lead out of the folder of the set.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from arbiscale_jax.errors import UserError

from . import metadata
from .folders import METADATA
from .metadata import Entry

FEATURES, FORMAT = "features.json", "array_record"
SHARD_NAME = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # the default template of TFDS
MAX_FEATURES = 10_000  # counting features within features
REMEDY = "copy or prepare the set again"
_NUMBERED = ("SHARD_X_OF_Y", "SHARD_INDEX")  # the fields of a template that differ between shards
_FIELDS = ("DATASET", "SPLIT", "FILEFORMAT", *_NUMBERED, "NUM_SHARDS")


class Split(NamedTuple):
    """Describes a split of a set."""

    name: str  # as the set calls it, for example train
    template: str  # template for the file names of its shards
    shard_lengths: tuple[int, ...]  # number of records in each shard
    num_bytes: int  # size of all shards together


class SetInfo(NamedTuple):
    """Holds the contents of dataset_info.json."""

    name: str  # name of the set
    file_format: str  # such as array_record; "" if the file does not say
    splits: dict[str, Split]  # splits by name


def is_prepared(directory: Path) -> bool:
    """Tells whether `directory` is a set with TFDS metadata."""
    return (directory / METADATA).is_file()


def read_info(directory: Path) -> SetInfo:
    """Reads dataset_info.json.

    Raises:
      UserError: if the set is missing, the file is damaged, or shards would be outside the directory.
    """
    if not directory.is_dir():
        raise UserError(
            f"The prepared set {directory} does not exist; make it with "
            f"'python -m arbiscale_jax.data.prepare --input FOLDER --output {directory}'."
        )
    info = metadata.read(directory / METADATA, REMEDY)
    name, splits = info.member("name").name(), {}
    entries = info.member("splits").items()
    if not entries:
        raise info.member("splits").wrong("a list of one or more splits")
    for entry in entries:
        split = _read_split(entry, name, directory)
        if split.name in splits:
            raise entry.member("name").wrong("a name that no other split has")
        splits[split.name] = split
    return SetInfo(name, info.member("fileFormat").get(Entry.name, ""), splits)


def shard_paths(directory: Path, info: SetInfo, split: Split) -> list[Path]:
    """Returns the paths of the shards of a split, in order."""
    total = len(split.shard_lengths)
    return [directory / shard_name(split.template, info.name, split.name, k, total) for k in range(total)]


def shard_name(template: str, dataset: str, split: str, number: int, total: int) -> str:
    """Returns the file name of shard `number`, counted from 0, of `total` shards."""
    index, num = f"{number:05d}", f"{total:05d}"
    values: dict[str, str] = dict(zip(_FIELDS, (dataset, split, FORMAT, f"{index}-of-{num}", index, num), strict=True))
    return re.sub(r"\{(\w+)\}", lambda field: values[field[1]], template)


def image_features(directory: Path) -> list[str]:
    """Returns the names of the features in features.json that hold images, or raises UserError if it is damaged."""
    found = metadata.read(directory / FEATURES, REMEDY).member("featuresDict").member("features").members()
    return [name for name, one in found.items() if "image" in one.members() or _class_of(one).endswith(".Image")]


def check_for_tfds(directory: Path) -> None:
    """Refuses features that would make TFDS run code or read files from outside the directory of the set.

    TFDS imports the class that a feature names, and reads files that are named after a feature.

    Raises:
      UserError: if there is such a feature.
    """
    remedy = f"read the set with data.source=prepared and data.root={directory}"
    waiting = [metadata.read(directory / FEATURES, remedy)]
    for _ in range(MAX_FEATURES):
        if not waiting:
            return
        waiting += _check_feature(waiting.pop())
    raise UserError(f"{directory / FEATURES} has more than {MAX_FEATURES} features; {remedy}.")


def _check_feature(feature: Entry) -> list[Entry]:
    """Returns the features within a feature, or raises UserError if this one is not as TFDS itself writes it."""
    if "type" in feature.members():
        raise feature.member("type").wrong("absent, since features in this old form are not read")
    if not _class_of(feature).startswith("tensorflow_datasets."):
        raise feature.member("pythonClassName").wrong("a class of tensorflow_datasets")
    arguments = feature.member("jsonFeature").get(lambda entry: entry.member("json").text(), "{}")
    if arguments.strip() != "{}":  # an argument may be the name of a file
        raise feature.member("jsonFeature").member("json").wrong("{}")
    inner = feature.member("featuresDict").get(lambda entry: entry.member("features").members(), {})
    for name in inner:
        if not metadata.stays_inside(name):
            raise UserError(
                f"The feature {metadata.shown(name)} in {feature.file} must have a name that is a path below the "
                f"set's folder; {feature.remedy}."
            )
    return [*inner.values(), *feature.member("sequence").get(lambda entry: [entry.member("feature")], [])]


def _read_split(entry: Entry, dataset: str, directory: Path) -> Split:
    """Reads one split, or raises UserError if it is damaged or its shards would be outside the directory."""
    name, lengths = entry.member("name").name(), entry.member("shardLengths")
    counts = tuple(one.count() for one in lengths.get(Entry.items, ()))  # TFDS leaves out empty lists
    template = entry.member("filepathTemplate")
    text = template.get(Entry.text, "") or SHARD_NAME
    fields = re.findall(r"\{(\w+)\}", text)
    if not set(fields) <= set(_FIELDS) or re.search(r"[{}]", re.sub(r"\{\w+\}", "", text)):
        raise template.wrong(f"a template of {', '.join(f'{{{field}}}' for field in _FIELDS)}")
    if len(counts) > 1 and not set(fields) & set(_NUMBERED):
        raise template.wrong(f"a template with {{{_NUMBERED[0]}}}, since there are {len(counts)} shards")
    place = shard_name(text, dataset, name, 0, len(counts))
    if not metadata.stays_inside(place) or not _is_below((directory / place).parent, directory):
        blamed = template if template.get(Entry.text, "") else entry.member("name")
        raise blamed.wrong("of a path below the set's folder, without .., backslashes and colons")
    return Split(name, text, counts, entry.member("numBytes").get(Entry.count, 0))


def _is_below(path: Path, folder: Path) -> bool:
    """Tells whether a path is below a folder after symbolic links, to which a template may lead, are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _class_of(feature: Entry) -> str:
    """Returns the name of the Python class of a feature."""
    return feature.member("pythonClassName").text()
