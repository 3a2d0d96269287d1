"""Run by test_parallel.py: five steps of two stages on one device, on eight, and on eight with divided state.

Prints, as JSON, {stage: {name of the layout: largest difference of a parameter from one device's, ...}} and what of the
state a device holds.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from toys import random_weights, tiny

from arbiscale_jax import data
from arbiscale_jax.runtime import mesh
from arbiscale_jax.training import start
from arbiscale_jax.training.optimizer import Optimizer
from arbiscale_jax.training.stages import build_stage
from arbiscale_jax.training.state import create_state
from arbiscale_jax.training.step import make_train_step, stream

STEPS, LEAST = 5, 64
STAGES = {  # alignment at random times holds what the diffusion stage computes
    "first_stage": {"one": (1, 1), "eight": (8, 1)},  # devices, of them along the axis "fsdp"
    "align": {"one": (1, 1), "fsdp": (8, 4)},
}


def bytes_on_a_device(tree) -> int:
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def run(stage, weights, batches, devices: int, fsdp: int):
    """Returns the parameters after five steps of SGD, and the part of params and EMA that a device holds."""
    m, tx = mesh.make_mesh(jax.devices()[:devices], fsdp), optax.sgd(0.01)
    params, frozen = start.split(weights, stage.trained)
    frozen = mesh.replicate(frozen, m)
    state = create_state(params, tx, 0.9)
    places = mesh.state_sharding(state, m, LEAST)
    state = jax.device_put(state, places)
    sharding = (places, mesh.replicated(m))
    step = make_train_step(stage, Optimizer(tx, 0.9), stream(0, "train"), sharding=sharding)
    step = step.lower(state, frozen, mesh.shard_batch(batches[0], m), np.float32(0)).compile()
    whole = sum(x.nbytes for x in jax.tree.leaves(state))
    for batch in batches:
        state, _ = step(state, frozen, mesh.shard_batch(batch, m), np.float32(0))
    assert all(x.sharding == s for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(places), strict=True))
    flops = (step.cost_analysis() or {}).get("flops", 0.0)
    return jax.device_get(state.params), {"part": bytes_on_a_device(state) / whole, "flops": flops}


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_disable_most_optimizations", True)
    report = {}
    for name, layouts in STAGES.items():
        one_level = {"model.first_stage.ch_mult": (1,), "model.unet.channel_mult": (1,), "train.batch_size": 8}
        config = tiny(name, **one_level, **{"data.flip": False})
        stage = build_stage(config)
        given = data.train_batches(config.data, 0, 8)
        batches = [next(given) for _ in range(STEPS)]
        given.close()
        weights = random_weights(jax.eval_shape(stage.init, jax.random.key(0), batches[0]))
        if name != "first_stage":
            weights["scale_factor"] = jnp.float32(0.9)
        results = {layout: run(stage, weights, batches, *counts) for layout, counts in layouts.items()}
        (one, _), moved = results["one"], start.split(weights, stage.trained)[0]

        def largest(a, b):
            return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.max(np.abs(x - y))), a, b)))

        report[name] = {layout: {"error": largest(params, one), **rest} for layout, (params, rest) in results.items()}
        report[name]["moved"] = largest(moved, one)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
