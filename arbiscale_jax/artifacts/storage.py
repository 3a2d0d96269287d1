"""Locates and reads models on disk: training runs, exported folders and bundled models.

A run consists of config.json, frozen.safetensors (the weights that it does not train) and Orbax checkpoints. An
exported model consists of config.json and weights.safetensors. Trees of weights have the top-level keys first_stage
(with encoder, decoder and liif), unet and scale_factor.
"""

import json
import os
from contextlib import closing
from importlib import resources
from pathlib import Path
from textwrap import shorten
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from arbiscale_jax.errors import UserError

from .weights import check_floating, load_weights

CONFIG, FROZEN, CHECKPOINTS = "config.json", "frozen.safetensors", "checkpoints"  # the files of a run
WEIGHTS = "weights.safetensors"  # the file of an exported model


def flatten(tree) -> dict:
    """Turns nested dicts into one dict whose keys are paths, joined by slashes."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(flat: dict) -> dict:
    """Turns the result of `flatten` back into nested dicts."""
    return traverse_util.unflatten_dict(flat, sep="/")


def merge(*trees) -> dict:
    """Joins trees of weights; where two have the same weight, the later one counts."""
    return unflatten({key: value for tree in trees for key, value in flatten(tree).items()})


def missing_parts(weights: dict) -> list[str]:
    """Lists the parts of the auto-encoder that a tree of weights lacks."""
    first_stage = weights.get("first_stage", {})
    return [f"first_stage/{part}" for part in ("encoder", "decoder", "liif") if part not in first_stage]


def bundled_models() -> dict[str, Path]:
    """Returns the names and folders of the models that come with the package."""
    folder = resources.files("arbiscale_jax") / "pretrained"
    found = [Path(str(x)) for x in folder.iterdir()] if folder.is_dir() else []
    return {x.name: x for x in sorted(found) if (x / CONFIG).is_file()}


def locate(name: str | os.PathLike) -> Path:
    """Returns the directory of a run or an exported model, or of the bundled model of that name.

    A bundled model's name means the bundled model unless there is a directory of that name that holds a model; a folder
    of pictures called photos does not hide the model photos.

    Raises:
      UserError: if the system refuses to look for it, because the name is too long or its folder may not be read.
    """
    path, bundled = Path(os.path.expanduser(name)), bundled_models().get(str(name))
    try:
        there = (path / CONFIG).is_file()
    except OSError as e:
        raise UserError(f"{shorten(str(path), 60)} cannot be opened as a model ({e.strerror}).") from e
    return path if bundled is None or there else bundled


def read_config(run_dir: Path | str) -> dict:
    """Reads the config.json of a run or an exported model, and raises UserError if there is none that can be read."""
    path = Path(run_dir) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UserError(f"There is no {CONFIG} in {run_dir}; give a training run or an exported model.") from e
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path} cannot be read as JSON ({e}); restore it or train in another directory.") from e
    if not isinstance(config, dict):
        found = shorten(repr(config), 60)
        raise UserError(f"{path} holds {found}, where an object of fields is expected; restore the file.")
    return config


def newest_step(run_dir: Path | str) -> int | None:
    """Returns the step of the newest finished checkpoint, or None if there is none."""
    folder = Path(run_dir) / CHECKPOINTS
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=None)


def has_checkpoint(run_dir: Path | str) -> bool:
    """Tells whether a run has a checkpoint, so that it can be resumed or loaded."""
    return newest_step(run_dir) is not None


def is_model(path: Path) -> bool:
    """Tells whether `path` holds the weights of a run or an exported model."""
    return (path / WEIGHTS).is_file() or has_checkpoint(path)


def restore_params(run_dir: Path | str, ema: bool = True) -> dict:
    """Reads the trained weights of the newest checkpoint, whatever devices it was written from.

    Args:
      run_dir: the directory of the run.
      ema: whether to read the moving average of the weights, if the run has one, instead of the weights themselves.

    Returns:
      A nested dict of numpy arrays, {"first_stage": ...} or {"unet": ...}; frozen weights are in frozen.safetensors.

    Raises:
      UserError: if there is no checkpoint, or it cannot be read.
    """
    step = newest_step(run_dir)
    if step is None:
        raise UserError(f"There is no checkpoint in {run_dir}; train it first, or give a run that has been trained.")
    folder = Path(run_dir).resolve() / CHECKPOINTS / str(step)
    path: Any = folder / ("ema" if ema and (folder / "ema").is_dir() else "params")
    try:
        with closing(ocp.PyTreeCheckpointHandler()) as handler:
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
            return handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"Checkpoint {folder} cannot be read ({e}); delete it to use the one before.") from e


def read_frozen(run_dir: Path | str) -> dict:
    """Reads the weights that a run does not train, from its frozen.safetensors."""
    return load_weights(Path(run_dir) / FROZEN)


def read_weights(path: Path) -> dict:
    """Reads all weights of a run (the averaged ones of its newest checkpoint) or of an exported model, as numpy arrays.

    Raises:
      UserError: if `path` is neither, or a file cannot be read.
    """
    if (path / WEIGHTS).is_file():
        weights = load_weights(path / WEIGHTS)
        check_floating(weights, path / WEIGHTS)
        return weights
    if has_checkpoint(path):
        return merge(read_frozen(path), restore_params(path))
    raise UserError(f"{path} is neither a training run with a checkpoint nor an exported model; train or correct it.")
