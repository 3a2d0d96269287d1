"""Trains all stages of a model by the clock on one machine: the core of photos.py and emoji.py.

All programs compile at once in threads while the first stage trains with those that are ready. Each stage gets a share
of the time that is left when its turn comes. Weights go to OUT every minute, in half precision; the whole state goes to
STATE, so that a second call continues. Examples are made on the device (data/synthesis); nothing comes from the host.
"""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from arbiscale_jax.artifacts import registry, storage
from arbiscale_jax.data import synthesis
from arbiscale_jax.training import start
from arbiscale_jax.training.batches import example_settings
from arbiscale_jax.training.begin import state_maker
from arbiscale_jax.training.optimizer import optimizer_from_config
from arbiscale_jax.training.stages import build_stage
from arbiscale_jax.training.step import make_train_step, stream

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # bfloat16 FLOP/s, dense
SAVE_EVERY = 60.0  # seconds
REPORT_EVERY = 20.0  # seconds
LEAST_SECONDS = 2.0  # of a stage, where compilation took all the time
HALF_WAY = 0.5  # of its learning rate's course: where a finished stage goes on
PROGRESS, STATE, MODEL = "progress.json", "state.msgpack", "model"


class Part(NamedTuple):
    """A stage of the recipe."""

    name: str
    config: object  # a locked ConfigDict
    share: float  # of the minutes


class Clock:
    """Seconds since the process began, its end, and lines of text with the time."""

    def __init__(self, minutes: float):
        self._began, self.end = time.monotonic(), 60 * minutes

    def now(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        print(f"[{self.now():6.1f} s] {text}", flush=True)


class Program(NamedTuple):
    """What a variant of examples needs, compiled."""

    make: Callable  # (key, store) -> batch
    step: Callable  # (state, frozen, batch, share) -> (state, metrics)
    flops: float  # of a step


class Plan(NamedTuple):
    """A stage whose programs are being compiled."""

    part: Part
    stage: object
    create: Callable  # (params) -> state
    programs: list[Future]  # of Program, by variant
    variants: tuple


def prepare(part: Part, store, pool: ThreadPoolExecutor, clock: Clock) -> Plan:
    """Starts compiling a stage's programs: examples and training step of every variant."""
    config, cfg = part.config, part.config.train
    stage, optimizer = build_stage(config), optimizer_from_config(cfg)
    (variants, settings), create = example_settings(config), state_maker(stage, optimizer, config.seed)
    step = make_train_step(stage, optimizer, stream(config.seed, "train"), adversarial=stage.critic is not None)

    def compiled(variant) -> Program:
        def make(key, store):
            return synthesis.make_batch(key, store, variant, cfg.batch_size, settings)

        begun, key = time.monotonic(), jax.random.key(0)
        batch = jax.eval_shape(make, key, store)
        params, frozen = start.split(jax.eval_shape(stage.init, key, batch), stage.trained)
        frozen |= {"scale_factor": jnp.float32(1)} if stage.scale_factor else {}
        frozen |= {"lpips": stage.lpips} if stage.lpips else {}
        lowered = step.lower(jax.eval_shape(create, params), frozen, batch, np.float32(0))
        flops = (lowered.cost_analysis() or {}).get("flops", 0.0)  # before the compiler makes calls of convolutions
        found = Program(jax.jit(make).lower(key, store).compile(), lowered.compile(), flops)
        clock.say(f"{part.name}: a program of {found.flops / 1e12:.2f} TFLOP after {time.monotonic() - begun:.1f} s")
        return found

    return Plan(part, stage, create, [pool.submit(compiled, variant) for variant in variants], variants)


def ready(plan: Plan, step: int) -> Program:
    """Returns the program of a step's variant, or while that is being compiled another one's that is done."""
    wanted = plan.variants.index(synthesis.variant_of(step, plan.variants))
    order = [wanted, *(i for i, future in enumerate(plan.programs) if future.done())]
    return next(plan.programs[i] for i in order if plan.programs[i].done()).result()


class Kit:
    """Trains parts one after the other; what it keeps on disk lets a second call go on."""

    def __init__(self, store, out: Path, state: Path, clock: Clock):
        self.store, self.out, self.state, self.clock = store, out, state, clock
        self.weights, self.progress = {}, {"part": "", "share": 0.0, "step": 0}
        state.mkdir(parents=True, exist_ok=True)
        if (state / PROGRESS).is_file():
            self.progress = json.loads((state / PROGRESS).read_text())

    def run(self, parts: list[Part], reserve: float) -> None:
        """Trains what is left of `parts`, until `reserve` seconds before the clock's end."""
        names = [part.name for part in parts]
        if self.progress["part"] in names:
            parts = parts[names.index(self.progress["part"]) :]
            self.weights = storage.read_weights(self.state / MODEL)
            self.clock.say(f"Going on with {parts[0].name} at step {self.progress['step']}.")
        with ThreadPoolExecutor(max(4, os.cpu_count() or 4)) as pool:
            plans = [prepare(part, self.store, pool, self.clock) for part in parts]
            for i, plan in enumerate(plans):
                wait(plan.programs, return_when=FIRST_COMPLETED)
                left = self.clock.end - reserve - self.clock.now()
                seconds = max(LEAST_SECONDS, left * plan.part.share / sum(part.share for part in parts[i:]))
                self.clock.say(f"{plan.part.name}: {seconds:.0f} s of the {left:.0f} s that are left")
                later = plans[i + 1].programs if i + 1 < len(plans) else None
                self.train(plan, seconds, lambda later=later: later is None or any(future.done() for future in later))

    def begin(self, plan: Plan, batch):
        """Makes a stage's state of the weights so far, or reads what an interrupted call left of it."""
        config, stage = plan.part.config, plan.stage
        tops = jax.eval_shape(stage.init, jax.random.key(0), batch).keys() | {"scale_factor"}
        given = {name: tree for name, tree in self.weights.items() if name in tops}
        params, frozen = start.start_weights(stage, given, stream(config.seed, "params"), batch)
        frozen = {**frozen, "lpips": stage.lpips} if stage.lpips else frozen
        state = jax.jit(plan.create)(params)
        path = self.state / STATE
        if self.progress["part"] == plan.part.name and path.is_file():
            state = jax.device_put(serialization.from_bytes(jax.device_get(state), path.read_bytes()))
        return state, jax.device_put(frozen)

    def train(self, plan: Plan, seconds: float, next_ready: Callable[[], bool]) -> None:
        """Trains a stage for `seconds`, and on until the next one's programs are ready."""
        config, name, clock = plan.part.config, plan.part.name, self.clock
        root = stream(config.seed, f"examples of {name}")
        state, frozen = self.begin(plan, ready(plan, 0).make(root, self.store))
        before = self.progress["share"] if self.progress["part"] == name else 0.0
        before = min(before, HALF_WAY)
        began = saved = told = clock.now()
        step, share, flops, pending = int(state.step), before, 0.0, ()
        while share < 1 or not next_ready():
            program = ready(plan, step)
            batch = program.make(jax.random.fold_in(root, step), self.store)
            state, metrics = program.step(state, frozen, batch, np.float32(min(share, 1)))
            step, flops = step + 1, flops + program.flops
            jax.block_until_ready(pending)  # at most two steps in flight, so that the clock is true
            pending, now = metrics, clock.now()
            share = before + (1 - before) * (now - began) / max(seconds, 1e-3)
            if now - told > REPORT_EVERY:
                self.report(name, step, metrics, flops / max(now - told, 1e-3))
                told, flops = now, 0.0
            if now - saved > SAVE_EVERY:
                self.save(plan, state, frozen, step, share)
                saved = now
        self.report(name, step, metrics, flops / max(clock.now() - told, 1e-3))
        self.weights = self.save(plan, state, frozen, step, share)

    def report(self, name: str, step: int, metrics: dict, rate: float) -> None:
        """Prints the losses and what share of the device's peak was used. Raises: SystemExit if one is not finite."""
        values = {key: float(value) for key, value in metrics.items()}
        kind = jax.devices()[0].device_kind
        peak = next((value for key, value in PEAK.items() if key in kind), None)
        used = f", {rate / peak:.1%} of its peak" if peak else ""
        terms = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self.clock.say(f"{name} step {step}: {rate / 1e12:.2f} TFLOP/s{used}  {terms}")
        if not all(np.isfinite(list(values.values()))):
            raise SystemExit(f"{name}: the loss is not finite at step {step}.")

    def save(self, plan: Plan, state, frozen, step: int, share: float) -> dict:
        """Writes the model to OUT/model (half precision) and the whole state to STATE; returns the model's weights."""
        frozen = {key: value for key, value in frozen.items() if key != "lpips"}
        weights = storage.merge(self.weights, jax.device_get(frozen), jax.device_get(state.average))
        config = plan.part.config.to_dict()
        training = {key: value for key, value in config.items() if key != "model"}
        training |= {"part": plan.part.name, "step": step}
        card = f"Made by benchmarks/gpu, part {plan.part.name}, step {step}, on {jax.devices()[0].device_kind}.\n"
        about = {"model": config["model"], "training": training}
        registry.write_export(self.out / MODEL, about, weights, card, np.float16)
        registry.write_export(self.state / MODEL, about, weights, card, np.float32)
        part = self.state / (STATE + ".part")
        part.write_bytes(serialization.to_bytes(jax.device_get(state)))
        os.replace(part, self.state / STATE)
        self.progress = {"part": plan.part.name, "share": min(float(share), 1.0), "step": step}
        (self.state / PROGRESS).write_text(json.dumps(self.progress))
        self.clock.say(f"{plan.part.name}: saved at step {step}")
        return weights
