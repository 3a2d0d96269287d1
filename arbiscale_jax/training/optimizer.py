"""Adam behind a global-norm clip, and the learning rate's course: a linear warm-up, then constant or half a cosine."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from arbiscale_jax.errors import UserError

SCHEDULES = ("constant", "cosine")


class LearningRate(NamedTuple):
    """The learning rate as a function of the updates done and of the share of the training that is done.

    The share, in [0, 1], comes from the loop: a run that ends by the clock (train.minutes) does not know its number of
    steps. Where it ends by train.steps the share is step / steps.
    """

    peak: float
    warmup_steps: int = 0
    schedule: str = "constant"
    final: float = 0.0  # cosine: what is left at the end, as a fraction of the peak

    def __call__(self, count, share):
        """Returns peak * min(1, (count + 1) / warmup_steps) * (final + (1 - final) (1 + cos(pi share)) / 2) -> []."""
        rate = self.peak * jnp.minimum(1.0, (count + 1) / max(self.warmup_steps, 1))
        if self.schedule == "constant":
            return rate
        fall = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0.0, 1.0)))
        return rate * (self.final + (1 - self.final) * fall)


def learning_rate(cfg) -> LearningRate:
    """Reads the learning rate's course from config.train. Raises: UserError for a field that makes no sense."""
    if cfg.schedule not in SCHEDULES:
        raise UserError(f"train.schedule is one of {', '.join(SCHEDULES)}, got {cfg.schedule!r}.")
    if not 0 <= cfg.final_lr <= 1:
        raise UserError(f"train.final_lr is a fraction of train.learning_rate within 0 and 1, got {cfg.final_lr}.")
    return LearningRate(cfg.learning_rate, cfg.warmup_steps, cfg.schedule, cfg.final_lr)


def make_optimizer(
    learning_rate: float | LearningRate, warmup_steps: int = 0, grad_clip: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Builds the one optimizer of all stages; its update takes `share`, the share of the training done (default 0).

    Its state has the same shape whatever the arguments, so a run may be resumed with others.
    Args: learning_rate, a LearningRate, or a constant after a linear rise over warmup_steps updates; grad_clip, largest
      global norm of the gradient, 0 for none.
    """
    if not isinstance(learning_rate, LearningRate):
        learning_rate = LearningRate(learning_rate, warmup_steps)
    adam = optax.chain(optax.scale_by_adam(), _scale_by(learning_rate))
    return optax.chain(optax.clip_by_global_norm(grad_clip or float("inf")), adam)


def _scale_by(learning_rate: LearningRate) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate; the state is that of optax.scale_by_schedule, the count alone."""

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, share=0.0, **extra):
        rate = learning_rate(state.count, share)
        updates = jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init, update)
