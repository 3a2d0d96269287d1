"""Writes and reads a training run on disk: frozen.safetensors and Orbax checkpoints of everything that changes."""

import dataclasses
import math
import os
import shutil
import socket
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from arbiscale_jax.artifacts.storage import CHECKPOINTS, FROZEN, has_checkpoint, newest_step
from arbiscale_jax.artifacts.weights import save_weights
from arbiscale_jax.errors import UserError

from . import survival
from .clock import Clock, Spent
from .state import TrainState


@contextmanager
def provisional(run_dir: Path, made: tuple[str, ...]) -> Iterator[Callable[[], None]]:
    """Creates and locks a run's directory, and removes what it made if the run fails before its first update.

    While the directory is locked, no other run writes there.

    Args:
      run_dir: the directory.
      made: the names of what a run writes there; those that existed before are not removed.

    Yields:
      A function to call when the first update is done.

    Raises:
      UserError: if the directory cannot be written, or another process holds it.
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
    """Removes files, and folders with their contents."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink()


def _remove_empty(folders: list[Path]) -> None:
    """Removes empty folders in the given order, from the deepest on, and stops at the first that is not empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _prepare(run_dir: Path) -> None:
    """Creates a run's directory, and raises UserError if it cannot be written."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / f".write_test_{socket.gethostname()}_{os.getpid()}"  # several hosts may do this at once
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(
            f"The work directory {run_dir} cannot be written ({e.strerror}); choose another --workdir."
        ) from e


@contextmanager
def open_manager(run_dir: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens a run's checkpoints for saving in the background.

    The newest `keep` checkpoints and the one with the lowest validation loss are kept.

    Raises:
      UserError: if the disk fills up while it is open.
    """
    best = policies.BestN(
        get_metric_fn=lambda m: m["val_loss"],
        reverse=True,
        n=1,
        keep_checkpoints_without_metrics=False,  # what is left if a removal is interrupted
    )
    policy = policies.AnyPreservationPolicy([policies.LatestN(max(keep, 1)), best])
    options = ocp.CheckpointManagerOptions(
        best_fn=lambda m: m["val_loss"],  # makes Orbax store the metric; the policy above decides what is kept
        best_mode="min",
        preservation_policy=policy,
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,  # removes what a killed process had written in part
    )
    with (
        _full_disk_told(run_dir),
        closing(ocp.CheckpointManager((run_dir / CHECKPOINTS).resolve(), options=options)) as manager,
    ):
        yield manager


@contextmanager
def _full_disk_told(run_dir: Path) -> Iterator[None]:
    """Turns the errors that a full disk causes, here or in Orbax, into a UserError that names the last checkpoint."""
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
    """Returns the parts of a state that a checkpoint stores, by name; `aj.load` reads only `ema` or `params`."""
    items = {"params": state.params, "opt_state": state.opt_state, "ema": state.ema, "disc": state.disc}
    return {name: tree for name, tree in items.items() if tree}


def save(manager: ocp.CheckpointManager, state: TrainState, clock: Clock, val_loss: float | None = None) -> None:
    """Starts saving the state and the run's clock; a val_loss that is None or not finite never counts as the best."""
    args: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
    args["progress"] = ocp.args.JsonSave({"elapsed": clock.trained, "compiled": clock.compiled})
    rank = val_loss if val_loss is not None and math.isfinite(val_loss) else math.inf
    manager.save(int(state.step), args=ocp.args.Composite(**args), metrics={"val_loss": rank})


def restore(manager: ocp.CheckpointManager, like: TrainState) -> TrainState:
    """Reads the newest checkpoint.

    Args:
      manager: the run's checkpoints.
      like: the shapes and placements of the state, as ShapeDtypeStructs.

    Returns:
      The state.

    Raises:
      UserError: if the checkpoint does not fit `like`, for example because EMA was switched on since.
    """
    step = manager.latest_step()
    if step is None:
        raise UserError(f"There is no checkpoint in {manager.directory}; train the run first.")
    args = {name: ocp.args.StandardRestore(tree) for name, tree in _items(like).items()}
    try:
        out = manager.restore(step, args=ocp.args.Composite(**args))
    except (ValueError, KeyError, FileNotFoundError) as e:
        where, why = f"{manager.directory}/{step}", textwrap.shorten(str(e), 200)
        raise UserError(
            f"Checkpoint {where} does not fit this config ({why}); use its own or another --workdir."
        ) from e
    items = {name: out[name] for name in _items(like)}
    count = jax.device_put(np.int32(step), like.step.sharding)
    return dataclasses.replace(like, step=count, **items)


def read_spent(run_dir: Path) -> Spent:
    """Returns the time that the run had used at its newest checkpoint."""
    path: Any = Path(run_dir).resolve() / CHECKPOINTS / str(newest_step(run_dir)) / "progress"
    progress = ocp.JsonCheckpointHandler().restore(path, args=ocp.args.JsonRestore())
    return Spent(progress["elapsed"], progress.get("compiled", 0.0))


def write_frozen(run_dir: Path, frozen: dict) -> None:
    """Writes the weights that the run does not train; they never change."""
    save_weights(run_dir / FROZEN, frozen)
