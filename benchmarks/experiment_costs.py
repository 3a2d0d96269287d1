"""What a training step of every experiment costs, by shape evaluation alone: nothing is trained or compiled.

Run: python benchmarks/experiment_costs.py (about 5 minutes on 2 CPU cores); prints the table of docs/EXPERIMENTS.md.
FLOPs are XLA's count for the traced step, forward and backward, at the configuration's batch size. State is what
training holds in float32: weights, gradients, Adam's two moments, the moving average, and the frozen weights;
activations come on top.
"""

import jax
import jax.numpy as jnp
import optax

from arbiscale_jax.experiments.paper import EXPERIMENTS, get_experiment_config, stages
from arbiscale_jax.training import start
from arbiscale_jax.training.optimizer import Optimizer
from arbiscale_jax.training.stages import build_stage
from arbiscale_jax.training.state import create_state
from arbiscale_jax.training.step import make_train_step

COLUMNS = ("configuration", "batch", "trained", "frozen", "TFLOP per step", "state, GB")


def batch_shapes(config) -> dict:
    """Returns the arrays of a batch as data.train_batches makes it."""
    cfg, b = config.data, config.train.batch_size
    shapes = {"image": (cfg.image_size, cfg.image_size, 3), "target": (cfg.target_patch, cfg.target_patch, 3)}
    if cfg.lr_size:
        shapes["lr"] = (cfg.lr_size, cfg.lr_size, 3)
    shapes = {name: jax.ShapeDtypeStruct((b, *shape), jnp.float32) for name, shape in shapes.items()}
    whole = {"target_size": (b,), "target_start": (b, 2)}
    return shapes | {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in whole.items()}


def count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def costs(config) -> dict:
    """Returns trained and frozen parameters, FLOPs of a step, and bytes of training state."""
    stage, batch, key = build_stage(config), batch_shapes(config), jax.random.key(0)
    params, frozen = start.split(jax.eval_shape(stage.init, key, batch), stage.trained)
    trained, fixed = count(params), count(frozen)
    if stage.scale_factor:
        frozen["scale_factor"] = jax.ShapeDtypeStruct((), jnp.float32)
    optimizer = Optimizer(optax.adam(config.train.learning_rate), config.train.ema_decay)
    state = jax.eval_shape(lambda params: create_state(params, optimizer.tx, optimizer.ema_decay), params)
    step = make_train_step(stage, optimizer, key)
    flops = step.lower(state, frozen, batch).cost_analysis()["flops"]
    return {"trained": trained, "frozen": fixed, "flops": flops, "state": 4 * (5 * trained + fixed)}


def main() -> None:
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    known = {}
    for name in EXPERIMENTS:
        for stage in stages(name):
            config = get_experiment_config(name, stage)
            key = str(config.to_dict() | {"data": {**config.data.to_dict(), "source": ""}})
            one = known[key] = known.get(key) or costs(config)
            print(
                f"| {name}_{stage} | {config.train.batch_size} | {one['trained']:,} | {one['frozen']:,} | "
                f"{one['flops'] / 1e12:.1f} | {one['state'] / 1e9:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
