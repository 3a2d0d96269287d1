"""Builds the training step, and derives the random keys of a run."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.stages import Wrapped

from arbiscale_jax.runtime.random import fold_name, seed_key

from .optimizer import Optimizer
from .stages.stage import Stage, UpdatePath
from .state import TrainState, update_ema

UNROLLED = 8  # paths of up to so many points are unrolled, since gradients in a loop are slow in XLA on a CPU


def stream(seed: int, name: str) -> jax.Array:
    """Returns the root key for one use of randomness in a run, such as "params", "train" or "val"; see `seed_key`."""
    return fold_name(seed_key(seed), name)


def make_train_step(
    stage: Stage, optimizer: Optimizer, root_key, *, sharding=None, accumulate: int = 1, adversarial: bool = False
) -> Wrapped:
    """Builds the compiled training step: key, loss, gradient, optimizer, EMA and metrics.

    Under a mesh the loss is the mean over the global batch, so the result does not depend on the number of devices.
    Each example's place in the batch is added as batch["index"], so that random draws do not depend on the
    micro-batches.

    Args:
      stage: the stage, with its loss or the losses along its path.
      optimizer: the optimizer of the stage's networks.
      root_key: the key into which the number of the step is folded.
      sharding: the shardings of (state, metrics), or one for all.
      accumulate: the number of micro-batches, computed one after another, whose gradients are averaged.
      adversarial: whether to use the stage's discriminator, which is updated from the same gradient.

    Returns:
      A function (state, frozen, batch, share=0) -> (state, metrics with loss, grad_norm and learning_rate). It donates
        the state. The share of the training that is done, in [0, 1], sets the learning rate (optimizer.LearningRate).
    """
    path, critic = stage.path, stage.critic if adversarial else None
    updates = path.updates if path else 1

    def objective(weights, frozen, data, key, i):
        batch, point = data
        disc = (weights["disc"],) if critic else ()
        if path:
            return path.loss_fn(weights["params"], frozen, batch, key, point, i, *disc)
        loss, metrics = stage.loss_fn(weights["params"], frozen, batch, key, *disc)
        return loss, (metrics, point)

    def update(state: TrainState, frozen, data, key, share, i):
        """Makes update i on data = (batch, point of the path), and returns the state, metrics and the next point."""
        weights = {"params": state.params} | ({"disc": state.disc["params"]} if critic else {})
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (loss, (metrics, point)), grads = mean_over_parts(
            lambda part: value_and_grad(weights, frozen, part, key, i), data, accumulate
        )
        metrics = {"loss": loss, **metrics, "grad_norm": optax.tree.norm(grads["params"])}
        params, opt_state = _apply(optimizer.tx, grads["params"], state.opt_state, state.params, share=share)
        count = state.step * updates + i  # the number of updates before this one
        if optimizer.rate:
            metrics["learning_rate"] = optimizer.rate(count, share)
        ema = update_ema(state.ema, params, count + 1, optimizer.ema_decay) if optimizer.ema_decay else {}
        disc = state.disc
        if critic:
            disc_params, disc_opt_state = _apply(critic.tx, grads["disc"], disc["opt_state"], disc["params"])
            disc = {"params": disc_params, "opt_state": disc_opt_state}
        return TrainState(state.step, params, ema, opt_state, disc), metrics, point

    def along_path(path: UpdatePath, state: TrainState, frozen, batch, key, share):
        def one(carry, i):
            state, metrics, point = update(carry[0], frozen, (batch, carry[1]), key, share, i)
            return (state, point), metrics

        start = (state, path.begin(state.params, frozen, batch, key))
        if updates == 1:
            (state, _), metrics = one(start, 0)
            return state, metrics
        unroll = updates if updates <= UNROLLED and jax.default_backend() == "cpu" else 1
        (state, _), metrics = jax.lax.scan(one, start, jnp.arange(updates), unroll=unroll)
        return state, jax.tree.map(jnp.mean, metrics)

    def step(state: TrainState, frozen, batch, share=0.0):
        key = jax.random.fold_in(root_key, state.step)
        batch = {**batch, "index": jnp.arange(len(next(iter(batch.values()))))}
        if path:
            state, metrics = along_path(path, state, frozen, batch, key, share)
        else:
            state, metrics, _ = update(state, frozen, (batch, {}), key, share, 0)
        return dataclasses.replace(state, step=state.step + 1), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=sharding)


def _apply(tx, grads, opt_state, params, **extra):
    changes, opt_state = optax.with_extra_args_support(tx).update(grads, opt_state, params, **extra)
    return optax.apply_updates(params, changes), opt_state


def mean_over_parts(grad_fn: Callable, data, parts: int):
    """Computes grad_fn on equal micro-batches of the data, one after another, and averages the results.

    Part i takes every parts-th example, starting with example i; if the batch is divided over devices, each part then
    holds the same number of examples from each device.

    Args:
      grad_fn: data -> ((loss, (metrics, outputs with a leading batch axis)), gradients).
      data: arrays [b ...].
      parts: the number of micro-batches, a divisor of b.

    Returns:
      The result of grad_fn on all data, if its losses are means over examples; outputs are in the order of the data.
    """
    if parts == 1:
        return grad_fn(data)
    split = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), data)

    def one(total, part):
        (loss, (metrics, outputs)), grads = grad_fn(part)
        return jax.tree.map(jnp.add, total, (loss, metrics, grads)), outputs

    (loss, (metrics, _)), grads = jax.eval_shape(grad_fn, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, metrics, grads))
    total, outputs = jax.lax.scan(one, zeros, split)
    loss, metrics, grads = jax.tree.map(lambda x: x / parts, total)
    outputs = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), outputs)
    return (loss, (metrics, outputs)), grads
