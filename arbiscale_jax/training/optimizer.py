"""Builds the optimizer, Adam behind a limit on the gradient's norm, and the schedule of its learning rate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from arbiscale_jax.errors import UserError

SCHEDULES = ("constant", "cosine")


class LearningRate(NamedTuple):
    """Computes the learning rate from the number of updates done and the share of the training that is done.

    The rate rises linearly during the warm-up and is then constant or falls along half a cosine. The loop provides the
    share, in [0, 1], because a run that ends by the clock (train.minutes) does not know its number of steps. In a run
    that ends by train.steps the share is step / steps.
    """

    peak: float  # the rate after the warm-up
    warmup_steps: int = 0  # updates during which the rate rises
    schedule: str = "constant"  # constant or cosine
    final: float = 0.0  # for cosine: the rate at the end, as a fraction of the peak

    def __call__(self, count, share):
        """Returns peak * min(1, (count + 1) / warmup_steps) * (final + (1 - final) (1 + cos(pi share)) / 2), a scalar.

        With the constant schedule the last factor is 1.
        """
        rate = self.peak * jnp.minimum(1.0, (count + 1) / max(self.warmup_steps, 1))
        if self.schedule == "constant":
            return rate
        fall = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0.0, 1.0)))
        return rate * (self.final + (1 - self.final) * fall)


def learning_rate(cfg) -> LearningRate:
    """Reads the learning rate's schedule from config.train, and raises UserError for a field that makes no sense."""
    if cfg.schedule not in SCHEDULES:
        raise UserError(f"train.schedule is one of {', '.join(SCHEDULES)}, got {cfg.schedule!r}.")
    if not 0 <= cfg.final_lr <= 1:
        raise UserError(f"train.final_lr is a fraction of train.learning_rate within 0 and 1, got {cfg.final_lr}.")
    return LearningRate(cfg.learning_rate, cfg.warmup_steps, cfg.schedule, cfg.final_lr)


class Optimizer(NamedTuple):
    """Holds how the networks of a stage learn."""

    tx: optax.GradientTransformation  # turns gradients into updates of the weights
    ema_decay: float = 0.0  # decay of the moving average of the weights; 0 means no average
    rate: LearningRate | None = None  # the learning rate of `tx`, to be logged; None means it is not logged


def optimizer_from_config(cfg) -> Optimizer:
    """Builds the optimizer that config.train describes, and raises UserError for a field that makes no sense."""
    rate = learning_rate(cfg)
    return Optimizer(make_optimizer(rate, grad_clip=cfg.grad_clip), cfg.ema_decay, rate)


def make_optimizer(
    learning_rate: float | LearningRate, warmup_steps: int = 0, grad_clip: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Builds the optimizer that all stages use.

    Its update takes `share`, the share of the training that is done (0 by default). The shape of its state does not
    depend on the arguments, so a run may be resumed with others.

    Args:
      learning_rate: a LearningRate, or a number that is constant after a linear rise.
      warmup_steps: the number of updates of that rise; it is not used with a LearningRate.
      grad_clip: the largest global norm of the gradient, or 0 for no limit.

    Returns:
      The optimizer.
    """
    if not isinstance(learning_rate, LearningRate):
        learning_rate = LearningRate(learning_rate, warmup_steps)
    adam = optax.chain(optax.scale_by_adam(), _scale_by(learning_rate))
    return optax.chain(optax.clip_by_global_norm(grad_clip or float("inf")), adam)


def _scale_by(learning_rate: LearningRate) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate; its state is the count, as in optax.scale_by_schedule."""

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, share=0.0, **extra):
        rate = learning_rate(state.count, share)
        updates = jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init, update)
