"""Defines the state that a training step changes, and the moving average of the weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """Holds everything that changes in training; a checkpoint stores exactly this."""

    step: jax.Array  # int32 scalar, the number of steps done
    params: Any  # the trained weights
    ema: Any  # their moving average, or {} without EMA
    opt_state: Any  # the state of the optimizer
    disc: Any = struct.field(default_factory=dict)  # params and opt_state of the discriminator, or {}

    @property
    def average(self):
        """Returns the weights to validate and sample with: the moving average if there is one."""
        return self.ema or self.params


def create_state(params, tx: optax.GradientTransformation, ema_decay: float, disc=None) -> TrainState:
    """Makes a fresh state from copies of `params`; a step donates the buffers of the state, so none may be shared."""
    params = jax.tree.map(jnp.copy, params)
    ema = jax.tree.map(jnp.copy, params) if ema_decay else {}
    return TrainState(jnp.zeros((), jnp.int32), params, ema, tx.init(params), disc or {})


def update_ema(ema, params, n, ema_decay: float):
    """Moves the average `ema` towards `params` after update n, counted from 1, in float32.

    The decay is min(ema_decay, (1 + n) / (10 + n)), so that early averages follow the weights quickly.
    """
    n = jnp.asarray(n, jnp.float32)
    decay = jnp.minimum(jnp.float32(ema_decay), (1 + n) / (10 + n))
    return jax.tree.map(lambda e, p: e + (1 - decay) * (p.astype(jnp.float32) - e), ema, params)
