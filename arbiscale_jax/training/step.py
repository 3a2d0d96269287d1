"""The training step and the random streams of a run."""

import zlib
from collections.abc import Callable

import jax
import numpy as np
import optax

from .state import TrainState, update_ema


def stream(seed: int, name: str) -> jax.Array:
    """Returns the root key of one use of randomness ("params", "train", "val", ...) in a run."""
    return jax.random.fold_in(jax.random.key(seed), np.uint32(zlib.crc32(name.encode())))


def make_train_step(
    loss_fn: Callable, tx: optax.GradientTransformation, root_key, ema_decay: float, sharding=None
) -> Callable:
    """Compiles one update: key, loss, gradient, optimizer, EMA, metrics.

    Args: loss_fn, (params, frozen, batch, key) -> (loss [], dict of metrics []); root_key, folded with the step;
      ema_decay, 0 for no EMA; sharding, of state and metrics (mesh.replicated).
    Returns: (state, frozen, batch, share=0) -> (state, metrics with loss and grad_norm); the state is donated; share,
      of the training that is done, sets the learning rate (optimizer.LearningRate). Under a mesh the loss is the mean
      over the global batch, so any number of devices computes the same.
    """
    tx = optax.with_extra_args_support(tx)

    def step(state: TrainState, frozen, batch, share=0.0):
        key = jax.random.fold_in(root_key, state.step)
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, frozen, batch, key)
        updates, opt_state = tx.update(grads, state.opt_state, state.params, share=share)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema, params, state.step + 1, ema_decay) if ema_decay else {}
        state = TrainState(state.step + 1, params, ema, opt_state)
        return state, {"loss": loss, **metrics, "grad_norm": optax.tree.norm(grads)}

    return jax.jit(step, donate_argnums=0, out_shardings=sharding)
