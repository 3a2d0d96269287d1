"""Reads config.data: checks its fields, and opens the sources of training and validation images that it names."""

import logging
from collections.abc import Mapping
from typing import Any

from arbiscale_jax.errors import UserError

from .folders import SplitFiles
from .name_labels import WAYS
from .records import RecordOptions
from .small_pictures import least_side
from .source import Source
from .sources import SOURCES, SourceOptions, open_source

logger = logging.getLogger(__name__)


def train_source(config: Mapping[str, Any], most_bytes: int) -> Source:
    """Opens the training images of config.data without those that are held out for validation.

    Args:
      config: config.data of an experiment.
      most_bytes: largest memory that decoded images take, in bytes.

    Raises:
      UserError: if a field or the source is wrong.
    """
    own = config["source"] != "embedded" and config["val_source"]  # then nothing has to be held out
    if own and (config["val_source"], config["val_root"]) == (config["source"], config["root"]):
        logger.warning("data.val_root is data.root: validation uses images that are trained on.")
    val_file = "" if own else config["val_split_file"]  # it may list images of val_root instead
    options = _options(config, SplitFiles(config["split_file"], val_file), lr_root_of(config))
    return open_source(config["source"], config["root"], "all" if own else "train", most_bytes, options)


def cache_bytes(config: Mapping[str, Any]) -> int:
    """Returns the bytes of decoded images that one loader process may keep."""
    return int(config["cache_gib"] * 2**30) // max(1, config["workers"])


def val_source(config: Mapping[str, Any]) -> Source:
    """Opens the validation images of config.data."""
    kind = config["val_source"]
    if not kind:
        files = SplitFiles(config["split_file"], config["val_split_file"])
        options = _options(config, files, lr_root_of(config))
        return open_source(config["source"], config["root"], "val", options=options)
    options = _options(config, SplitFiles(config["val_split_file"]), lr_root_of(config, "val_lr_root"))
    return open_source(kind, config["val_root"], "all" if kind == "folder" else "val", options=options)


def _options(config: Mapping[str, Any], split_files: SplitFiles, lr_root: str) -> SourceOptions:
    """Returns the options of sources that config.data holds."""
    records = RecordOptions(tfds_dir=config["tfds_dir"], image_feature=config["image_feature"])
    least = least_side(config["image_size"], config["min_side"])
    return SourceOptions(config["image_size"], split_files, records, least, lr_root)


def lr_root_of(config: Mapping[str, Any], field: str = "lr_root") -> str:
    """Returns the folders of LR pictures, or "" if the stage has no use for LR images."""
    return config[field] if config["lr_size"] else ""


def check(config: Mapping[str, Any]) -> None:
    """Checks the fields of config.data and raises UserError for the first one that makes no sense."""
    size, lr, patch = config["image_size"], config["lr_size"], config["target_patch"]
    low, high = config["target_min"], config["target_max"]
    for field in ("source", "val_source"):
        if config[field] not in SOURCES and (field, config[field]) != ("val_source", ""):
            raise UserError(f"Unknown data.{field}={config[field]}; known are {', '.join(SOURCES)}.")
    for field, least in dict(
        image_size=1, lr_size=0, target_patch=1, val_num=1, workers=0, cache_gib=0, min_side=0
    ).items():
        if config[field] < least:
            raise UserError(f"data.{field} must be at least {least}, got {config[field]}.")
    if lr > size:
        raise UserError(f"data.lr_size must be at most data.image_size={size}, got {lr}.")
    if not patch <= low <= high:
        raise UserError(
            f"data.target_patch <= data.target_min <= data.target_max must hold, got {patch}, {low}, {high}; lower the "
            "first or raise the others."
        )
    for field, kind in dict(lr_root="source", val_lr_root="val_source").items():
        if config[field] and config[kind] != "folder":
            raise UserError(f"data.{field} goes with pictures of a folder; set data.{kind}=folder, or unset it.")
    if lr_root_of(config) and (config["degradation"] != "bicubic" or config["lr_scale_max"]):
        raise UserError(
            "data.lr_root gives the LR images, and data.degradation and data.lr_scale_max make others; unset "
            "data.lr_root, or set data.degradation=bicubic and data.lr_scale_min and data.lr_scale_max to 0."
        )
    if config["labels"] not in WAYS:
        raise UserError(f"data.labels is names, or empty for no labels, got {config['labels']!r}.")
    if not 0 <= config["recolor"] <= 1:
        raise UserError(f"data.recolor is a probability, got {config['recolor']}.")
    if not 0 < config["min_crop"] <= 1:
        raise UserError(f"data.min_crop must lie in (0, 1], got {config['min_crop']}.")
