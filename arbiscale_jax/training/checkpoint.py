"""A training run on disk: config.json, frozen.safetensors and Orbax checkpoints of everything that changes."""

import json
import math
import os
import shutil
import socket
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from arbiscale_jax import models
from arbiscale_jax.errors import UserError
from arbiscale_jax.storage import CHECKPOINTS, CONFIG, FROZEN, has_checkpoint, newest_step, read_config
from arbiscale_jax.weights import save_weights
from arbiscale_jax.whole_files import write_text

from . import survival
from .state import TrainState


@contextmanager
def provisional(run_dir: Path, made: tuple[str, ...]) -> Iterator[Callable[[], None]]:
    """Creates a run's directory, and leaves nothing of it behind if the run fails before it has begun.

    Meanwhile it is locked: no other process (of another run) writes there.
    Args: made, names of what a run puts there; they are removed unless they were there before.
    Yields: a function that declares the run begun.
    Raises: UserError if nothing can be written there, or another process holds it.
    """
    new_folders, begun = [folder for folder in (run_dir, *run_dir.parents) if not os.path.exists(folder)], []
    try:
        _prepare(run_dir)
        with survival.lock(run_dir):
            new_files = [run_dir / name for name in made if not os.path.exists(run_dir / name)]
            try:
                yield lambda: begun.append(True)
            except BaseException:
                if not begun and jax.process_index() == 0 and not has_checkpoint(run_dir):
                    _remove(new_files)
                raise
    except BaseException:
        if not begun:
            _remove_empty(new_folders)
        raise


def _remove(paths: list[Path]) -> None:
    """Removes files, and folders with what they hold."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink()


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders, deepest first, up to the first that is not empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _prepare(run_dir: Path) -> None:
    """Creates a run's directory. Raises: UserError if nothing can be written there."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / f".write_test_{socket.gethostname()}_{os.getpid()}"  # several hosts may be at it
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(
            f"The work directory {run_dir} cannot be written ({e.strerror}); choose another --workdir."
        ) from e


def write_config(run_dir: Path, config: dict) -> None:
    """Writes the resolved configuration."""
    write_text(run_dir / CONFIG, json.dumps(config, indent=2) + "\n")


def first_difference(a, b, name: str = "") -> str | None:
    """Returns the dotted name of the first field in which two JSON-like values differ, None where they agree."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in (*a, *(k for k in b if k not in a)):
            field = f"{name}.{key}" if name else key
            if key not in a or key not in b:
                return field
            if found := first_difference(a[key], b[key], field):
                return found
        return None
    a, b = (list(x) if isinstance(x, tuple) else x for x in (a, b))  # JSON has no tuples
    return None if a == b else name


def check_resumable(run_dir: Path, config: dict) -> None:
    """Raises: UserError naming the field if the run was started with another stage or model (sampling aside)."""

    def fixed(config):
        return {"stage": config.get("stage"), "model": {**models.complete(config.get("model", {})), "sampling": None}}

    if field := first_difference(fixed(read_config(run_dir)), fixed(config)):
        raise UserError(f"{run_dir} holds a run with another {field}; resume it with its own config or set --workdir.")


@contextmanager
def open_manager(run_dir: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens a run's checkpoints for saving in the background; keeps the newest `keep` and the best validated one.

    Raises: UserError if the disk fills while it is open, whoever notices.
    """
    best = policies.BestN(
        get_metric_fn=lambda m: m["val_loss"],
        reverse=True,
        n=1,
        keep_checkpoints_without_metrics=False,  # what is left of one whose removal was cut short
    )
    policy = policies.AnyPreservationPolicy([policies.LatestN(max(keep, 1)), best])
    options = ocp.CheckpointManagerOptions(
        best_fn=lambda m: m["val_loss"],  # makes Orbax store the metric; the policy decides
        best_mode="min",
        preservation_policy=policy,
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,  # what a killed process had half written
    )
    with (
        _full_disk_told(run_dir),
        closing(ocp.CheckpointManager((run_dir / CHECKPOINTS).resolve(), options=options)) as manager,
    ):
        yield manager


@contextmanager
def _full_disk_told(run_dir: Path) -> Iterator[None]:
    """Turns what a full disk leads to, in Orbax or here, into a UserError that names the last good checkpoint."""
    try:
        yield
    except (OSError, ValueError) as e:
        if not any(sign in str(e) for sign in ("RESOURCE_EXHAUSTED", "No space left", "Disk quota exceeded")):
            raise
        step = newest_step(run_dir)
        kept = "there is no checkpoint yet" if step is None else f"the last good checkpoint is step {step}"
        raise UserError(
            f"The disk of {run_dir} is full, so the run stopped; {kept}. Make room and start the same command again."
        ) from e


def _items(state: TrainState) -> dict:
    """What a checkpoint holds of a state, by name; aj.load reads `ema` or `params` alone."""
    items = {"params": state.params, "opt_state": state.opt_state, "ema": state.ema, "disc": state.disc}
    return {name: tree for name, tree in items.items() if tree}


def save(manager: ocp.CheckpointManager, state: TrainState, elapsed: float, val_loss: float | None = None) -> None:
    """Starts saving `state` and the run's training time in seconds; val_loss None or non-finite is never the best."""
    args = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
    args["progress"] = ocp.args.JsonSave({"elapsed": elapsed})
    rank = val_loss if val_loss is not None and math.isfinite(val_loss) else math.inf
    manager.save(int(state.step), args=ocp.args.Composite(**args), metrics={"val_loss": rank})


def restore(manager: ocp.CheckpointManager, like: TrainState) -> tuple[TrainState, float]:
    """Reads the newest checkpoint, shaped and placed as `like` (ShapeDtypeStructs), and the run's training time.

    Raises: UserError if it does not fit `like`, as where EMA was switched on since.
    """
    step = manager.latest_step()
    args = {name: ocp.args.StandardRestore(tree) for name, tree in _items(like).items()}
    try:
        out = manager.restore(step, args=ocp.args.Composite(**args, progress=ocp.args.JsonRestore()))
    except (ValueError, KeyError, FileNotFoundError) as e:
        where, why = f"{manager.directory}/{step}", textwrap.shorten(str(e), 200)
        raise UserError(
            f"Checkpoint {where} does not fit this config ({why}); use its own or another --workdir."
        ) from e
    items = {name: out[name] for name in _items(like)}
    count = jax.device_put(np.int32(step), like.step.sharding)
    return like.replace(step=count, **items), out["progress"]["elapsed"]


def read_elapsed(run_dir: Path) -> float:
    """Reads the training time, in seconds, at the newest checkpoint."""
    path = Path(run_dir).resolve() / CHECKPOINTS / str(newest_step(run_dir)) / "progress"
    return ocp.JsonCheckpointHandler().restore(path, args=ocp.args.JsonRestore())["elapsed"]


def write_frozen(run_dir: Path, frozen: dict) -> None:
    """Writes the weights that the run does not train; they never change."""
    save_weights(run_dir / FROZEN, frozen)
