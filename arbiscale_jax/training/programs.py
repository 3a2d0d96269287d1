"""Compiles the programs of a run: one training step per shape of the batches, and the validation."""

import math
from collections.abc import Callable

import jax
import numpy as np

from arbiscale_jax import data
from arbiscale_jax.runtime.mesh import replicated, shard_batch

from . import overview
from .batches import labelling
from .clock import Clock
from .run import Run
from .state import TrainState
from .step import make_train_step, stream


def make_programs(run: Run, clock: Clock) -> Callable:
    """Returns a function (step, state, frozen, batch) -> the compiled training step for these shapes.

    A program is compiled when it is first needed. With the first one, the run's parameters and FLOPs are reported.
    """
    config, stage = run.config, run.stage
    adversary_joins = stage.critic.start if stage.critic else math.inf
    known: dict[tuple, Callable] = {}

    def compiled(step: int, state: TrainState, frozen, batch) -> Callable:
        adversarial = step >= adversary_joins
        key = (adversarial, *((name, x.shape) for name, x in sorted(batch.items())))
        if key not in known:
            sharding = jax.tree.map(lambda x: x.sharding, state), replicated(run.mesh)
            with clock.compiling():
                step_fn = make_train_step(
                    stage,
                    run.optimizer,
                    stream(config.seed, "train"),
                    sharding=sharding,
                    accumulate=config.train.accumulate,
                    adversarial=adversarial,
                )
                program = step_fn.lower(state, frozen, batch, np.float32(0)).compile()
            if not known:
                _describe(run, state, frozen, program)
            known[key] = program
        return known[key]

    return compiled


def _describe(run: Run, state: TrainState, frozen, program) -> None:
    saved = {name: tree for name, tree in frozen.items() if name != "lpips"}
    text = overview.describe(state.params, saved, program, len(state.step.sharding.device_set))
    run.report.say(text)
    if run.is_main:
        overview.write_overview(run.workdir, text, state.params, saved)


def make_validation(run: Run, clock: Clock) -> Callable:
    """Returns a function (state, frozen) -> (metrics {"val/NAME": float}, panels [b k H W 3]) of the validation."""
    config = run.config
    key, batch = stream(config.seed, "val"), shard_batch(data.val_batch(config.data, **labelling(config)), run.mesh)
    eval_fn = jax.jit(run.stage.eval_fn, out_shardings=replicated(run.mesh))
    known: list[Callable] = []

    def validate(state: TrainState, frozen) -> tuple[dict, np.ndarray]:
        if not known:
            with clock.compiling():
                known.append(eval_fn.lower(state.average, frozen, batch, key).compile())
        metrics, panels = jax.device_get(known[0](state.average, frozen, batch, key))
        return {f"val/{name}": float(value) for name, value in metrics.items()}, panels

    return validate
