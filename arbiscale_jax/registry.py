"""Finding models: bundled ones by name, training runs and exported folders by path."""

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError

from arbiscale_jax.errors import UserError
from arbiscale_jax.inference import Model
from arbiscale_jax.storage import (
    CONFIG,
    WEIGHTS,
    bundled_models,
    locate,
    missing_parts,
    read_config,
    read_weights,
)
from arbiscale_jax.weights import save_weights
from arbiscale_jax.whole_files import write_text

FORMAT, CARD = 1, "README.md"  # of an exported model


def load(name: str | os.PathLike, *, dtype=jnp.float32) -> Model:
    """Loads a model: a bundled one's name, a training run's directory, or an exported folder.

    Args: dtype, compute type of the networks; weights stay float32.
    Returns: a Model; of a run, the newest checkpoint with its averaged (EMA) weights.
    Raises: UserError if there is no such model, or it is incomplete.
    """
    folder = locate(name)
    if not folder.is_dir():
        known = ", ".join(bundled_models()) or "none in this version"
        raise UserError(f"There is no model {str(name)!r}: no such directory, and the bundled models are: {known}.")
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is neither a training run nor an exported model: it has no {CONFIG}.")
    config, weights = read_config(folder), read_weights(folder)
    if not isinstance(config.get("model"), dict):
        raise UserError(f"{folder / CONFIG} describes no model; export or train it again.")
    scale_factor = float(np.asarray(weights.pop("scale_factor", 1.0)))
    if missing := missing_parts(weights):
        raise UserError(
            f"{folder} lacks the weights of {', '.join(missing)}, so it is no whole model; it may serve as "
            "--config.first_stage or --config.init_from of a training run."
        )
    return Model(config["model"], weights, scale_factor, dtype=dtype)


def export(run_dir: str | os.PathLike, folder: str | os.PathLike, *, dtype=np.float16) -> Path:
    """Writes a run's model as a folder: config.json, weights.safetensors, README.md (model card).

    Args: run_dir, a training run; folder, made if missing; dtype, of the stored weights (half precision by default).
    Returns: the folder.
    Raises: UserError if the run has no checkpoint, or `folder` holds something else.
    """
    run_dir, folder = Path(run_dir), Path(folder)
    if not (run_dir / CONFIG).is_file():
        raise UserError(f"{run_dir} is not a training run: it has no {CONFIG}.")
    check_export_folder(folder)
    config, weights = read_config(run_dir), read_weights(run_dir)
    about = {"model": config["model"], "training": {k: v for k, v in config.items() if k != "model"}}
    write_export(folder, about, weights, _card(run_dir.name, config, weights, np.dtype(dtype).name), dtype)
    return folder


def check_export_folder(folder: Path) -> None:
    """Raises: UserError if `folder` holds something else than an exported model."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / WEIGHTS).is_file())):
        raise UserError(f"{folder} exists and is not an exported model; choose another folder.")


def write_export(folder: Path, about: dict, weights: dict, card: str, dtype) -> None:
    """Writes an exported model: `about` (model, and where it comes from) as config.json, weights, model card."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / WEIGHTS, weights, dtype)
        (folder / CARD).write_text(card)
        write_text(folder / CONFIG, json.dumps({"format": FORMAT, **about}, indent=1) + "\n")
    except (OSError, SafetensorError) as e:
        raise UserError(f"{folder} cannot be written ({e}); choose another folder or make room.") from e


def parameter_table(weights: dict) -> str:
    """Returns a Markdown table of the networks' parameter counts."""

    def count(tree):
        return sum(count(v) if isinstance(v, dict) else np.size(v) for v in tree.values())

    parts = {**weights.get("first_stage", {}), **({"unet": weights["unet"]} if "unet" in weights else {})}
    rows = [f"| {part} | {count(tree):,} |" for part, tree in parts.items()]
    return "\n".join(["| part | parameters |", "| --- | --- |", *rows])


def _card(name: str, config: dict, weights: dict, dtype: str) -> str:
    task = "super-resolution" if config["model"]["condition"]["enabled"] else "generation"
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
