"""The training step and the random streams of a run."""

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .stage import Adversary, Path
from .state import TrainState, update_ema

UNROLLED = 8  # points of a path that are compiled one by one: XLA's CPU backend computes gradients in a loop slowly


def stream(seed: int, name: str) -> jax.Array:
    """Returns the root key of one use of randomness ("params", "train", "val", ...) in a run."""
    return jax.random.fold_in(jax.random.key(seed), np.uint32(zlib.crc32(name.encode())))


def make_train_step(
    loss_fn: Callable,
    tx: optax.GradientTransformation,
    root_key,
    ema_decay: float,
    sharding=None,
    *,
    accumulate: int = 1,
    adversary: Adversary | None = None,
    path: Path | None = None,
) -> Callable:
    """Compiles one step of the loop: key, loss, gradient, optimizer, EMA, metrics.

    Args: loss_fn, (params, frozen, batch, key) -> (loss [], dict of metrics []); root_key, folded with the step;
      ema_decay, 0 for no EMA; sharding, of (state, metrics), or one for all; accumulate, micro-batches, one after
      another, whose gradients are averaged; adversary, whose loss replaces loss_fn (a path's joins it) and whose
      discriminator is updated from the same gradient; path, whose updates replace the one of loss_fn.
    Returns: (state, frozen, batch, share=0) -> (state, metrics with loss and grad_norm); the state is donated; share,
      of the training that is done, sets the learning rate (optimizer.LearningRate). Under a mesh the loss is the mean
      over the global batch, so any number of devices computes the same. batch["index"], each example's place in it, is
      added, so that random draws do not depend on the micro-batches either.
    """
    tx, updates = optax.with_extra_args_support(tx), path.updates if path else 1

    def objective(weights, frozen, data, key, i):
        batch, here = data
        if path:
            return path.loss_fn(weights["params"], frozen, batch, key, here, i, weights.get("disc"))
        if adversary:
            loss, metrics = adversary.loss_fn(weights["params"], weights["disc"], frozen, batch, key)
        else:
            loss, metrics = loss_fn(weights["params"], frozen, batch, key)
        return loss, (metrics, here)

    def update(state: TrainState, frozen, data, key, share, i):
        """Makes update i of the step, on data = (batch, place on the path); returns state, metrics, next place."""
        weights = {"params": state.params} | ({"disc": state.disc["params"]} if adversary else {})
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (loss, (metrics, here)), grads = mean_over_parts(
            lambda part: value_and_grad(weights, frozen, part, key, i), data, accumulate
        )
        metrics = {"loss": loss, **metrics, "grad_norm": optax.tree.norm(grads["params"])}
        params, opt_state = _apply(tx, grads["params"], state.opt_state, state.params, share=share)
        ema = update_ema(state.ema, params, state.step * updates + i + 1, ema_decay) if ema_decay else {}
        disc = state.disc
        if adversary:
            disc_params, disc_opt_state = _apply(adversary.tx, grads["disc"], disc["opt_state"], disc["params"])
            disc = {"params": disc_params, "opt_state": disc_opt_state}
        return TrainState(state.step, params, ema, opt_state, disc), metrics, here

    def step(state: TrainState, frozen, batch, share=0.0):
        key = jax.random.fold_in(root_key, state.step)
        batch = {**batch, "index": jnp.arange(len(next(iter(batch.values()))))}
        if path:

            def along(now, i):
                state, metrics, here = update(now[0], frozen, (batch, now[1]), key, share, i)
                return (state, here), metrics

            start = (state, path.begin(state.params, frozen, batch, key))
            if updates == 1:
                (state, _), metrics = along(start, 0)
            else:
                unroll = updates if updates <= UNROLLED and jax.default_backend() == "cpu" else 1
                (state, _), metrics = jax.lax.scan(along, start, jnp.arange(updates), unroll=unroll)
                metrics = jax.tree.map(jnp.mean, metrics)
        else:
            state, metrics, _ = update(state, frozen, (batch, {}), key, share, 0)
        return state.replace(step=state.step + 1), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=sharding)


def _apply(tx, grads, opt_state, params, **extra):
    changes, opt_state = tx.update(grads, opt_state, params, **extra)
    return optax.apply_updates(params, changes), opt_state


def mean_over_parts(grad_fn: Callable, data, parts: int):
    """Computes grad_fn over `parts` equal micro-batches of `data`, one after another, and averages.

    Part i takes every parts-th example from i on: of a batch divided over devices, each device's own share.
    Args: grad_fn, data -> ((loss, (metrics, outputs with a leading batch axis)), gradients); data, arrays [b ...].
    Returns: like grad_fn on all data, where losses are means over examples; outputs in the data's order.
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
