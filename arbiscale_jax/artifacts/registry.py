"""Finds and reads whole models on disk with all checks, and exports training runs as folders."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from jax.typing import DTypeLike
from safetensors import SafetensorError

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import replacing

from .fit import check_fit, fingerprint, network_shapes
from .model_fields import check_model
from .storage import (
    CONFIG,
    WEIGHTS,
    bundled_models,
    locate,
    missing_parts,
    read_config,
    read_weights,
)
from .weights import save_weights

FORMAT, CARD = 1, "README.md"  # version of an exported model's files, and the name of its model card
NETWORKS = ("first_stage", "unet", "baseline")  # the networks in a tree of weights
ADVICE = "restore what was changed, or export or train the model again"
FITS = "fits"  # key in an exported config.json: the fingerprint of the weights that were checked when it was written


def find_model(name: str | os.PathLike) -> Path:
    """Returns the directory of a model: of a bundled one by its name, of a training run or of an exported model.

    Raises:
      UserError: if there is no such directory, or it has no config.json.
    """
    folder = locate(name)
    if not folder.is_dir():
        known = ", ".join(bundled_models()) or "none in this version"
        raise UserError(f"There is no model {str(name)!r}: no such directory, and the bundled models are: {known}.")
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is neither a training run nor an exported model: it has no {CONFIG}.")
    return folder


def read_settings(folder: Path) -> tuple[dict, dict]:
    """Reads the config.json of a model, without its weights.

    Returns:
      The content of config.json.
      Its field `model`, complete.

    Raises:
      UserError: if a field is wrong; the message names it.
    """
    config = read_config(folder)
    if config.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"format in {folder / CONFIG} is {config['format']!r}, where {FORMAT} is expected; open it with the "
            "version of arbiscale_jax that wrote it."
        )
    return config, check_model(config, folder / CONFIG)


def read_model(name: str | os.PathLike) -> tuple[dict, dict, float]:
    """Finds a model and reads it with all checks.

    Args:
      name: the name of a bundled model, or the directory of a training run or an exported model.

    Returns:
      The `model` part of its config.json, complete.
      Its weights without scale_factor; for a run the averaged weights of the newest checkpoint.
      Its scale_factor, or 1 if there is none.

    Raises:
      UserError: if there is no such model, it is incomplete, or its weights do not fit its config.json.
    """
    folder = find_model(name)
    _, model, weights = _read(folder)
    scale_factor = float(weights.pop("scale_factor", 1.0))
    if "baseline" not in weights and (missing := missing_parts(weights)):
        raise UserError(
            f"{folder} lacks the weights of {', '.join(missing)}, so it is not a whole model; it may serve as "
            "--config.first_stage or --config.init_from of a training run."
        )
    return model, weights, scale_factor


def _read(folder: Path) -> tuple[dict, dict, dict]:
    """Reads a run or an exported model and checks that its weights fit its config.json.

    Returns:
      The content of config.json.
      Its field `model`, complete.
      The weights.

    Raises:
      UserError: if a field or a weight is wrong; the message names it.
    """
    config, model = read_settings(folder)
    weights = read_weights(folder)
    source = str(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else f"the newest checkpoint of {folder}"
    scale = weights.get("scale_factor")
    if isinstance(scale, np.ndarray) and scale.size == 1:
        weights["scale_factor"] = scale = scale.reshape(())  # early exports have it with the shape [1]
    if config.get(FITS) != fingerprint(config["model"], weights):
        _check_weights(model, weights, source, str(folder / CONFIG))
    if scale is not None and not 0 < scale < np.inf:
        raise UserError(f"Weight scale_factor of {source} is {scale}, where a finite number > 0 is expected; {ADVICE}.")
    return config, model, weights


def _check_weights(model: Mapping, weights: Mapping, source: str, config: str) -> None:
    """Raises UserError unless weights fit the `model` part of a configuration; a network may be absent as a whole.

    Args:
      model: the `model` part of the configuration.
      weights: a tree of arrays.
      source: what error messages call the place of the weights.
      config: what error messages call the configuration.
    """
    others = {name: tree for name, tree in weights.items() if name not in NETWORKS}
    check_fit(others, {"scale_factor": np.float32(1)}, source, config, ADVICE)
    for name in (name for name in NETWORKS if name in weights):
        try:
            shapes = {name: network_shapes(model, name)}
        except ValueError as e:
            raise UserError(f"{config} describes a {name} that cannot be built ({e}); {ADVICE}.") from e
        check_fit({name: weights[name]}, shapes, source, config, ADVICE)
    if "unet" in weights and "scale_factor" not in weights:
        raise UserError(f"{source} lacks the weight scale_factor, a number > 0 that the U-Net needs; {ADVICE}.")


def export(
    run_dir: str | os.PathLike, folder: str | os.PathLike, *, dtype: DTypeLike = np.float16, overwrite: bool = False
) -> Path:
    """Writes a run's model as a folder with config.json, weights.safetensors and README.md (the model card).

    The folder names no path of this machine: of the paths in the run's configuration, to its data and its predecessors,
    only the last parts are kept.

    Args:
      run_dir: the directory of the training run.
      folder: the folder to write; it is made if it is missing.
      dtype: the type in which weights are stored, by default half precision.
      overwrite: whether to replace an exported model that the folder already holds.

    Returns:
      The folder.

    Raises:
      UserError: if the run has no checkpoint, or the folder holds something else, or a model and `overwrite` is False.
    """
    run_dir, folder = Path(run_dir), Path(folder)
    if not (run_dir / CONFIG).is_file():
        raise UserError(f"{run_dir} is not a training run: it has no {CONFIG}.")
    check_export_folder(folder, overwrite)
    config, model, weights = _read(run_dir)
    training = {k: without_paths(v) for k, v in config.items() if k not in ("model", "format", FITS)}
    card = _card(run_dir.resolve().name, {**training, "model": model}, weights, np.dtype(dtype).name)
    write_export(folder, {"model": model, "training": training}, weights, card, dtype)
    return folder


def check_export_folder(folder: Path, overwrite: bool = False) -> None:
    """Raises UserError if `folder` holds something else than an exported model, or a model that may not be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} exists and is not an exported model; choose another folder.")
    if not overwrite:
        raise UserError(
            f"{folder} holds an exported model already; give --overwrite (in Python overwrite=True) to replace it, or "
            "choose another folder."
        )


def without_paths(tree):
    """Reduces every path in a tree of JSON values, also each of several joined by commas, to its last part."""
    if isinstance(tree, Mapping):
        return {key: without_paths(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_paths(value) for value in tree]
    if not isinstance(tree, str):
        return tree
    return ",".join(re.split(r"[/\\]", path.rstrip("/\\"))[-1] for path in tree.split(","))


def write_export(folder: Path, about: dict, weights: dict, card: str, dtype) -> None:
    """Writes an exported model; config.json, weights and model card are all complete before any of them gets its name.

    Args:
      folder: the folder to write; it is made if it is missing.
      about: the content of config.json: `model`, and where the model comes from, whose paths lose all but their last
        parts.
      weights: the weights of one or more whole networks.
      card: the text of the model card.
      dtype: the type in which the weights are stored.

    Raises:
      UserError: if the weights do not fit the model, or the folder cannot be written.
    """
    _check_weights(about["model"], weights, "the model to write", "its configuration")
    about = {"format": FORMAT, **{k: v if k == "model" else without_paths(v) for k, v in about.items()}}
    about[FITS] = fingerprint(about["model"], weights)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # files get their names in the opposite order, config.json last
            config_part, card_part, weights_part = (
                stack.enter_context(replacing(folder / name)) for name in (CONFIG, CARD, WEIGHTS)
            )
            save_weights(weights_part, weights, dtype)
            card_part.write_text(card, encoding="utf-8")
            config_part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as e:
        raise UserError(f"{folder} cannot be written ({e}); choose another folder or make room.") from e


def parameter_table(weights: dict) -> str:
    """Returns a Markdown table with the number of parameters of each network."""

    def count(tree):
        return sum(count(v) if isinstance(v, dict) else np.size(v) for v in tree.values())

    parts = {**weights.get("first_stage", {}), **{k: weights[k] for k in ("unet", "baseline") if k in weights}}
    rows = [f"| {part} | {count(tree):,} |" for part, tree in parts.items()]
    return "\n".join(["| part | parameters |", "| --- | --- |", *rows])


def _card(name: str, config: dict, weights: dict, dtype: str) -> str:
    model = config["model"]
    upscales = "baseline" in model or model["condition"]["enabled"]
    task = "super-resolution" if upscales else "generation"
    data = config.get("data", {})
    return f"""# {name}

A model of arbiscale_jax for arbitrary-scale {task}, exported from the run `{name}` (stage `{config.get("stage")}`).

Use: `python run_sample.py --model THIS_FOLDER ...`, or `arbiscale_jax.load("THIS_FOLDER")`.

{parameter_table(weights)}

- Weights: {dtype}, averaged (EMA) where the run kept an average.
- Trained on: {data.get("source", "unknown")} {data.get("root", "")}, crops of {data.get("image_size")} pixels.
- config.json has the whole training configuration under `training`.
- Licence of the weights, metrics, limits and intended use: to be stated by whoever publishes this folder.
"""
