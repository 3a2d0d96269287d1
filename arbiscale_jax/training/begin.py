"""Makes the training state that a call begins with, a fresh one or that of the newest checkpoint."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from arbiscale_jax.artifacts import storage
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.mesh import replicate, state_sharding

from . import checkpoint, start, survival
from .clock import Spent
from .optimizer import Optimizer
from .run import Run
from .stages.stage import Stage
from .state import TrainState, create_state
from .step import stream


class Beginning(NamedTuple):
    """Holds what a call of the training loop begins with."""

    state: TrainState  # what training changes
    frozen: dict  # the weights that this stage does not train
    spent: Spent  # the time that earlier calls of this run have used


def newest_step(run_dir) -> int | None:
    """Returns the step of the checkpoint to resume from, or None if there is none.

    Raises:
      UserError: if the processes of the run see different checkpoints.
    """
    step = storage.newest_step(run_dir)
    if jax.process_count() > 1:
        seen = multihost_utils.process_allgather(np.int32(-1 if step is None else step))
        if len(set(seen.tolist())) > 1:
            raise UserError(
                f"The processes see different checkpoints in {run_dir} (newest steps {seen.tolist()}, -1: none); set "
                "--workdir to a folder that all hosts share."
            )
    return step


def state_maker(stage: Stage, optimizer: Optimizer, seed: int) -> Callable:
    """Returns a function that makes a fresh TrainState from parameters, with a discriminator if the stage has one.

    The function takes a tree of arrays or of shapes.
    """

    def create(params) -> TrainState:
        disc = stage.critic.init(stream(seed, "disc")) if stage.critic else None
        return create_state(params, optimizer.tx, optimizer.ema_decay, disc)

    return create


def _maker(run: Run) -> Callable:
    return state_maker(run.stage, run.optimizer, run.config.seed)


def state_shapes(run: Run, params) -> TrainState:
    """Returns the shapes of the training state for `params` (arrays or shapes), with their placement on the mesh."""
    shapes = jax.eval_shape(_maker(run), params)
    places = state_sharding(shapes, run.mesh, run.config.train.fsdp_least)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places)


def begin_fresh(run: Run, given: dict, manager, batch) -> Beginning:
    """Starts a run from the given weights, with random ones for the rest, and writes those that it does not train."""
    params, frozen = start.start_weights(run.stage, given, stream(run.config.seed, "params"), batch)
    like = state_shapes(run, params)
    check_space(run, manager, like, survival.tree_bytes(frozen))
    if run.is_main:
        checkpoint.write_frozen(run.workdir, jax.device_get(frozen))
    places = jax.tree.map(lambda x: x.sharding, like)
    params, frozen = jax.device_put(params, places.params), replicate(frozen, run.mesh)
    return Beginning(jax.jit(_maker(run), out_shardings=places)(params), frozen, Spent())


def begin_again(run: Run, manager, batch) -> Beginning:
    """Resumes a run from its newest checkpoint."""
    shapes = jax.eval_shape(run.stage.init, stream(run.config.seed, "params"), batch)
    params, _ = start.split(shapes, run.stage.trained)
    like = state_shapes(run, params)
    check_space(run, manager, like)
    state = checkpoint.restore(manager, like)
    frozen = replicate(storage.read_frozen(run.workdir), run.mesh)
    run.report.say(f"Resuming {run.workdir} at step {int(state.step)}.")
    return Beginning(state, frozen, checkpoint.read_spent(run.workdir))


def check_space(run: Run, manager, state, more: int = 0) -> None:
    """Raises UserError if the disk has no room for the checkpoints that the run will keep, and `more` bytes.

    The run keeps the newest train.keep checkpoints and the best one, and needs room for one that is being written;
    those that exist already are subtracted, and a run that will write fewer needs less.
    """
    cfg, done = run.config.train, manager.all_steps()
    left = max(cfg.steps - max(done, default=0), 1)
    made = -(-left // cfg.checkpoint_every) if cfg.checkpoint_every else 1
    num = max(min(cfg.keep + 2 - len(done), made), 1)
    survival.check_space(run.workdir, num * survival.tree_bytes(state) + more)
