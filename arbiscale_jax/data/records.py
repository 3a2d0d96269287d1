"""Images in ArrayRecord files with TFDS metadata: prepared sets, read directly, and TFDS sets by name.

A set is a directory with dataset_info.json (splits and their shards), features.json and the shards; `prepare` writes
such directories, and TFDS does with file_format=array_record. Neither way of reading needs TensorFlow.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import decode_image

from . import tf_example
from .folders import METADATA

FEATURES, FORMAT = "features.json", "array_record"
SUMMARY = "prepare.json"  # in sets that data.prepare made
SHARD_NAME = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # TFDS's template
VAL_SPLITS = ("validation", "val", "test")  # the first that a set has is its validation split
HELD_OUT_EVERY = 20  # without such a split, every 20th record of train is held out
PREFERRED = ("image", "hr")  # image features, of several


class RecordSet(NamedTuple):
    """What a Source is made of."""

    indices: np.ndarray  # of its records
    read: Callable[[int], np.ndarray]  # index -> uint8 [h, w, 3]
    title: str
    files: tuple[Path, ...]  # that hold them


class _Reader:
    """Decodes record i's image with Pillow, as uint8 RGB [h, w, 3]; goes to worker processes."""

    def __init__(self, records: Sequence[Any], image_of: Callable[[Any], bytes], title: str):
        self._records, self._image_of, self._title = records, image_of, title

    def __call__(self, index: int) -> np.ndarray:
        name = f"Record {index} of {self._title}"
        try:
            content = self._image_of(self._records[int(index)])
        except (RuntimeError, ValueError, KeyError, OSError) as e:
            raise UserError(f"{name} cannot be read ({e}); copy or prepare the set again.") from e
        return decode_image(content, name)


class _ImageOf:
    """Takes a feature from a serialized Example."""

    def __init__(self, feature: str):
        self._feature = feature

    def __call__(self, record: bytes) -> bytes:
        return tf_example.decode(record)[self._feature]


class _Item:
    """Takes a feature from an example that TFDS has parsed."""

    def __init__(self, feature: str):
        self._feature = feature

    def __call__(self, example: dict) -> bytes:
        return example[self._feature]


def is_prepared(directory: Path) -> bool:
    """Tells whether `directory` is a set with TFDS metadata."""
    return (directory / METADATA).is_file()


def open_prepared(root: str | Path, split: str, feature: str = "") -> RecordSet:
    """Opens a prepared set through grain alone; arguments as in `sources.make_source`.

    Raises: UserError if there is none, it is incomplete, not ArrayRecord, or has no such image feature.
    """
    if not str(root):
        raise UserError("The data source prepared needs a path; give it as config.data.root (or val_root).")
    root = Path(root).expanduser()
    info, feature = read_info(root), _pick_feature(root, feature)
    _check_format(root, [info.get("fileFormat", "")])
    splits = {one["name"]: one for one in info.get("splits", ())}
    name, hold_out = _pick_split(splits, split, root)
    paths = shard_paths(root, info, splits[name])
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"The prepared set {root} lacks {len(missing)} shards, as {missing[0].name}; copy it again.")
    try:
        records = grain.sources.ArrayRecordDataSource([str(path) for path in paths])
        total = len(records)
    except RuntimeError as e:
        raise UserError(f"The shards of the prepared set {root} cannot be read ({e}); copy it again.") from e
    title = f"the prepared set {root} ({name})"
    indices = _indices(total, split, hold_out, together=_is_tiled(root, name))
    return RecordSet(indices, _Reader(records, _ImageOf(feature), title), title, tuple(paths))


def open_tfds(name: str, data_dir: str, split: str, feature: str = "") -> RecordSet:
    """Opens a TFDS set, by name (lsun/bedroom, div2k/bicubic_x4:2.0.0) or directory, through TFDS's data source.

    Args: data_dir, where TFDS keeps its sets, default $TFDS_DATA_DIR or ~/tensorflow_datasets; the others as in
      `sources.make_source`.
    Raises: UserError with the command that prepares the set, if there is none in ArrayRecord, or TFDS is missing.
    """
    directory = _find_tfds(name, data_dir)
    feature = _pick_feature(directory, feature)
    try:
        import tensorflow_datasets as tfds
    except ImportError as e:
        raise UserError("The data source tfds needs the extra tfds; pip install 'arbiscale_jax[tfds]'.") from e
    try:
        builder = tfds.builder_from_directory(directory)
    except Exception as e:  # whatever a damaged description leads to
        raise UserError(f"TFDS cannot open {directory} ({e}); prepare it again.") from e
    _check_format(directory, [one.value for one in builder.info.available_file_formats()])
    chosen, hold_out = _pick_split(builder.info.splits, split, directory)
    decoders = {one: tfds.decode.SkipDecoding() for one in _image_features(directory)}  # TFDS would warn and use Pillow
    try:
        records = builder.as_data_source(split=chosen, decoders=decoders)
        total = len(records)
    except (RuntimeError, OSError) as e:
        raise UserError(f"The shards of {directory} cannot be read ({e}); prepare it again.") from e
    title, files = f"the TFDS set {name} ({chosen})", tuple(sorted(p for p in directory.iterdir() if p.is_file()))
    return RecordSet(_indices(total, split, hold_out), _Reader(records, _Item(feature), title), title, files)


def read_info(directory: Path) -> dict:
    """Reads dataset_info.json. Raises: UserError if the set is missing or the file damaged."""
    if not directory.is_dir():
        raise UserError(
            f"The prepared set {directory} does not exist; make it with "
            f"'python -m arbiscale_jax.data.prepare --input FOLDER --output {directory}'."
        )
    return _read_json(directory / METADATA)


def shard_paths(directory: Path, info: dict, split: dict) -> list[Path]:
    """Returns the files of one split of a set, in order."""
    total = len(split["shardLengths"])
    template = split.get("filepathTemplate") or SHARD_NAME
    return [
        directory / shard_name(template, info["name"], split["name"], number, total, info["fileFormat"])
        for number in range(total)
    ]


def shard_name(template: str, dataset: str, split: str, number: int, total: int, suffix: str = FORMAT) -> str:
    """Returns the name of shard `number` of `total`."""
    place = f"{number:05d}-of-{total:05d}"
    fields = {"DATASET": dataset, "SPLIT": split, "FILEFORMAT": suffix, "SHARD_X_OF_Y": place}
    fields |= {"SHARD_INDEX": f"{number:05d}", "NUM_SHARDS": f"{total:05d}"}
    return template.format(**fields)


def read_if_any(path: Path) -> dict:
    """Reads a JSON file, {} where there is none that can be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not JSON"
        raise UserError(f"{path} cannot be read ({why}); give the folder of a set that was prepared to the end.") from e


def _image_features(directory: Path) -> list[str]:
    features = _read_json(directory / FEATURES).get("featuresDict", {}).get("features", {})
    return [name for name, one in features.items() if "image" in one or one["pythonClassName"].endswith(".Image")]


def _pick_feature(directory: Path, wanted: str) -> str:
    """Returns the name of the feature that holds the image. Raises: UserError if it is unclear or not there."""
    found = _image_features(directory)
    if wanted:
        if wanted not in found:
            has = ", ".join(found) or "none"
            raise UserError(f"{directory} has no image feature {wanted!r} (data.image_feature); it has {has}.")
        return wanted
    if not found:
        raise UserError(f"{directory} has no image feature; give a set of images.")
    preferred = [name for name in PREFERRED if name in found]
    if not preferred and len(found) > 1:
        raise UserError(f"{directory} has several image features; name one as config.data.image_feature: {found}.")
    return (preferred or found)[0]


def _check_format(directory: Path, formats: list[str]) -> None:
    if FORMAT not in formats:
        raise UserError(
            f"{directory} is prepared as {', '.join(formats) or 'nothing known'}, which needs TensorFlow to be read; "
            f"convert it with 'tfds convert_format --dataset_version_dir={directory} --out_file_format={FORMAT}'."
        )


def _pick_split(splits, split: str, where: Path) -> tuple[str, bool]:
    """Returns the set's own name of a split, and whether every 20th record of it is the validation split."""
    val = next((name for name in VAL_SPLITS if name in splits), None)
    if split == "val" and val:
        return val, False
    if "train" in splits:
        return "train", split != "all" and not val
    if len(splits) != 1:
        raise UserError(f"{where} has the splits {', '.join(splits) or '-'}, none of them train; prepare one.")
    return next(iter(splits)), split != "all"


def _is_tiled(root: Path, split: str) -> bool:
    """Whether the records are tiles, which overlap, of images one after the other."""
    try:
        return read_if_any(root / SUMMARY)[split]["plan"]["fit"] == "tiles"
    except (KeyError, TypeError):
        return False  # made by others


def _indices(total: int, split: str, hold_out: bool, together: bool = False) -> np.ndarray:
    """Returns which of `total` records belong to a split; `together`, the last ones are held out."""
    indices = np.arange(total)
    if not hold_out or total == 1:
        return indices
    is_val = indices % HELD_OUT_EVERY == min(HELD_OUT_EVERY, total) - 1
    if together:
        is_val = indices >= total - is_val.sum()
    return indices[is_val if split == "val" else ~is_val]


def _find_tfds(name: str, data_dir: str) -> Path:
    """Returns the directory of a TFDS set: name[/config][:version] below data_dir, the newest version."""
    if not name:
        raise UserError("The data source tfds needs a name, as lsun/bedroom; give it as config.data.root or val_root.")
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
