"""Does the loader keep up? Steps a second with it over steps a second on one repeated batch.

Run: python benchmarks/input_speed.py --config configs/div2k_sr_first_stage.py --set data.root=DIR data.workers=2
Networks and batch size are the config's (smaller ones: --set); weights are random, so no earlier stage is needed. A
warm-up of a few steps is not counted.
"""

import argparse
import time
from contextlib import closing

import jax
import numpy as np
from common import markdown, override

from arbiscale_jax import data
from arbiscale_jax.cli import config_flag, program
from arbiscale_jax.runtime import mesh
from arbiscale_jax.training import start
from arbiscale_jax.training.optimizer import optimizer_from_config
from arbiscale_jax.training.stages import build_stage
from arbiscale_jax.training.state import create_state
from arbiscale_jax.training.step import make_train_step, stream


def steps_per_second(step, state, frozen, batches, warm_up: int, seconds: float):
    """Runs `warm_up` steps, then as many as fit in `seconds`; at most two are in flight, as in training."""
    before, count, began = None, -warm_up, None
    while True:
        if count == 0:
            jax.block_until_ready(state)
            began = time.perf_counter()
        state, metrics = step(state, frozen, next(batches), np.float32(0))
        jax.block_until_ready(before)
        before, count = metrics, count + 1
        if began is not None and time.perf_counter() - began > seconds:
            jax.block_until_ready(state)
            return count / (time.perf_counter() - began), state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", type=override, nargs="*", default=[], metavar="FIELD=VALUE", help="of the config")
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement")
    parser.add_argument(
        "--warm-up", type=int, default=8, help="steps that are not counted: loaders start, buffers fill"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of both measurements, in turns")
    args = parser.parse_args()
    program.start_jax()
    config = config_flag.load(args.config).copy_and_resolve_references()
    config.update_from_flattened_dict(dict(args.set))
    cfg, stage, devices = config.train, build_stage(config), mesh.make_mesh(fsdp=config.train.fsdp)
    with closing(data.train_batches(config.data, config.seed, cfg.batch_size)) as host:
        loaded = (mesh.shard_batch(batch, devices) for batch in host)
        batch = next(loaded)
        params, frozen = start.start_weights(stage, {}, stream(config.seed, "params"), batch)
        optimizer = optimizer_from_config(cfg)
        state = create_state(params, optimizer.tx, cfg.ema_decay)
        places = mesh.state_sharding(state, devices, cfg.fsdp_least)
        state, frozen = jax.device_put(state, places), mesh.replicate(frozen, devices)
        sharding = (places, mesh.replicated(devices))
        options = dict(sharding=sharding, accumulate=cfg.accumulate)
        step = make_train_step(stage, optimizer, stream(config.seed, "train"), **options)
        rows, sums = [], {"one batch": [], "loader": []}
        for i in range(args.rounds):
            for name, batches in (("one batch", iter(lambda: batch, None)), ("loader", loaded)):
                speed, state = steps_per_second(step, state, frozen, batches, args.warm_up, args.seconds)
                sums[name].append(speed)
                rows.append([str(i + 1), name, f"{speed:.3f}", f"{speed * cfg.batch_size:.2f}"])
    print(markdown(["round", "input", "steps/s", "examples/s"], rows))
    print(f"\nloader over one batch: {np.mean(sums['loader']) / np.mean(sums['one batch']):.3f}")


if __name__ == "__main__":
    main()
