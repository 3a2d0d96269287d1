"""Models on disk: training runs, exported folders and the bundled ones; what training and inference both read.

A run is config.json, frozen.safetensors (weights it does not train) and Orbax checkpoints; an exported model is
config.json and weights.safetensors. Trees of weights have the top-level keys first_stage (encoder, decoder, liif),
unet and scale_factor.
"""

import json
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from arbiscale_jax.errors import UserError
from arbiscale_jax.weights import load_weights

CONFIG, FROZEN, CHECKPOINTS = "config.json", "frozen.safetensors", "checkpoints"  # of a run
WEIGHTS = "weights.safetensors"  # of an exported model


def flatten(tree) -> dict:
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(flat: dict) -> dict:
    return traverse_util.unflatten_dict(flat, sep="/")


def merge(*trees) -> dict:
    """Joins trees of weights, later ones over earlier ones."""
    return unflatten({key: value for tree in trees for key, value in flatten(tree).items()})


def missing_parts(weights: dict) -> list[str]:
    """Names the parts of the auto-encoder that a tree of weights lacks."""
    first_stage = weights.get("first_stage", {})
    return [f"first_stage/{part}" for part in ("encoder", "decoder", "liif") if part not in first_stage]


def bundled_models() -> dict[str, Path]:
    """Finds the models that ship with the package: name -> folder."""
    folder = resources.files("arbiscale_jax") / "pretrained"
    found = [Path(str(x)) for x in folder.iterdir()] if folder.is_dir() else []
    return {x.name: x for x in sorted(found) if (x / CONFIG).is_file()}


def locate(name: str | Path) -> Path:
    """Returns a run's or an exported model's directory, or the bundled model's of that name where there is none.

    A folder of that name that holds no model, as one of pictures called photos, hides no bundled model.
    """
    path, bundled = Path(name), bundled_models().get(str(name))
    return path if bundled is None or (path / CONFIG).is_file() else bundled


def read_config(run_dir: Path | str) -> dict:
    """Reads a run's (or an exported model's) config.json. Raises: UserError if there is none that can be read."""
    path = Path(run_dir) / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as e:
        raise UserError(f"There is no {CONFIG} in {run_dir}; give a training run or an exported model.") from e
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read ({e}); restore it or train in another directory.") from e
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no configuration; restore it or train in another directory.")
    return config


def newest_step(run_dir: Path | str) -> int | None:
    """Returns the newest finished checkpoint's step, None without one."""
    folder = Path(run_dir) / CHECKPOINTS
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=None)


def has_checkpoint(run_dir: Path | str) -> bool:
    """Tells whether a run can be resumed or loaded."""
    return newest_step(run_dir) is not None


def is_model(path: Path) -> bool:
    """Tells whether `path` holds weights."""
    return (path / WEIGHTS).is_file() or has_checkpoint(path)


def restore_params(run_dir: Path | str, ema: bool = True) -> dict:
    """Reads the newest checkpoint's trained weights on whatever devices there are.

    Args: ema, the moving average where the run has one, else the raw weights.
    Returns: nested dict of numpy arrays, {"first_stage": ...} or {"unet": ...}; frozen ones lie in frozen.safetensors.
    Raises: UserError without a checkpoint.
    """
    step = newest_step(run_dir)
    if step is None:
        raise UserError(f"There is no checkpoint in {run_dir}; train it first, or give a run that has been trained.")
    folder = Path(run_dir).resolve() / CHECKPOINTS / str(step)
    path = folder / ("ema" if ema and (folder / "ema").is_dir() else "params")
    handler = ocp.PyTreeCheckpointHandler()
    try:
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
        return handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"Checkpoint {folder} cannot be read ({e}); delete it to use the one before.") from e


def read_frozen(run_dir: Path | str) -> dict:
    """Reads what `write_frozen` wrote."""
    return load_weights(Path(run_dir) / FROZEN)


def read_weights(path: Path) -> dict:
    """Reads all weights of a run (the newest checkpoint's EMA) or of an exported folder, as numpy arrays.

    Raises: UserError if it is neither.
    """
    if (path / WEIGHTS).is_file():
        return load_weights(path / WEIGHTS)
    if has_checkpoint(path):
        return merge(read_frozen(path), restore_params(path))
    raise UserError(f"{path} is neither a training run with a checkpoint nor an exported model; train or correct it.")
