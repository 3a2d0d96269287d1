"""What a training step carries, and the moving average of the weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """All that changes in training; a checkpoint holds exactly this."""

    step: jax.Array  # [] int32, updates done
    params: Any
    ema: Any  # like params, or {} without EMA
    opt_state: Any
    disc: Any = struct.field(default_factory=dict)  # params and opt_state of a discriminator, or {}

    @property
    def average(self):
        """The weights to validate and sample with: the EMA where there is one."""
        return self.ema or self.params


def create_state(params, tx: optax.GradientTransformation, ema_decay: float, disc=None) -> TrainState:
    """Starts from copies of `params`: a step donates the state's buffers, so none may be shared."""
    params = jax.tree.map(jnp.copy, params)
    ema = jax.tree.map(jnp.copy, params) if ema_decay else {}
    return TrainState(jnp.zeros((), jnp.int32), params, ema, tx.init(params), disc or {})


def update_ema(ema, params, n, ema_decay: float):
    """Moves `ema` towards `params` after update n (from 1), decay min(ema_decay, (1 + n) / (10 + n)), in float32."""
    n = jnp.asarray(n, jnp.float32)
    decay = jnp.minimum(jnp.float32(ema_decay), (1 + n) / (10 + n))
    return jax.tree.map(lambda e, p: e + (1 - decay) * (p.astype(jnp.float32) - e), ema, params)
