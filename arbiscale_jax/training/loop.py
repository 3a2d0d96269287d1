"""The one training loop: start or resume, step, log, validate, checkpoint, stop."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from arbiscale_jax import data, storage
from arbiscale_jax.errors import UserError

from . import align, cache, checkpoint, diffusion, first_stage, overview, reporting, start
from .mesh import check_batch_size, make_mesh, replicate, replicated, shard_batch
from .optimizer import learning_rate, make_optimizer
from .stage import Stage
from .state import TrainState, create_state
from .step import make_train_step, stream

MADE = (  # by a run before its first step is done
    *(storage.CONFIG, storage.FROZEN, storage.CHECKPOINTS, overview.OVERVIEW, overview.PROFILE),
    *(reporting.METRICS, reporting.TENSORBOARD),
)
STAGES = {"first_stage": first_stage.make_stage, "diffusion": diffusion.make_stage, "align": align.make_stage}


def build_stage(config) -> Stage:
    """Builds the stage that `config` names. Raises: UserError for an unknown one."""
    if config.stage not in STAGES:
        raise UserError(f"stage is one of {', '.join(STAGES)}, got {config.stage!r}.")
    return STAGES[config.stage](config)


def train(config, workdir: Path | str) -> dict:
    """Trains one stage until train.steps updates or train.minutes in all, whichever comes first.

    A work directory with checkpoints is resumed from the newest; else the weights come from `init_from` and the
    stage's predecessor, else from scratch. Always ends with a validation and a checkpoint; Ctrl-C does too. What fails
    before the first update leaves nothing behind in the work directory.
    Args: config, a ConfigDict like config.get_base_config's; workdir, of config.json, checkpoints, metrics, samples.
    Returns: the last record of metrics.jsonl.
    Raises: UserError for what the user can mend, a non-finite loss among it; KeyboardInterrupt after saving.
    """
    workdir, cfg = Path(workdir), config.train
    _check(cfg)
    stage, mesh, tx = build_stage(config), make_mesh(), make_optimizer(learning_rate(cfg), grad_clip=cfg.grad_clip)
    check_batch_size(cfg.batch_size, mesh, cfg.accumulate)
    cache.check(config)
    reporting.check_tensorboard(cfg.tensorboard)
    overview.check_profile(cfg.profile_start, cfg.profile_steps)
    main = jax.process_index() == 0
    with (
        checkpoint.provisional(workdir, MADE) as begun,
        reporting.progress(workdir.name, quiet=not main) as report,
    ):
        first_step = storage.newest_step(workdir)
        if first_step is not None:
            checkpoint.check_resumable(workdir, config.to_dict())
            if _share(cfg, first_step, checkpoint.read_elapsed(workdir)) >= 1:
                report.say(f"{workdir} is complete at step {first_step}; to go on raise train.steps or train.minutes.")
                return next(iter(reporting.read_metrics(workdir)[::-1]), {"step": first_step})
        batches = data.train_batches(config.data, config.seed, cfg.batch_size, start_step=first_step or 0)
        batch = shard_batch(next(batches), mesh)
        with closing(checkpoint.open_manager(workdir, cfg.keep)) as manager:
            begin = _fresh if first_step is None else _resume
            state, frozen, elapsed = begin(config, workdir, stage, mesh, manager, batch, tx, report.say)
            if config.data.latent_cache:
                batches.close()
                batches = cache.cached_batches(config, frozen, first_step or 0, report)
                batch = shard_batch(next(batches), mesh)
            if main:
                checkpoint.write_config(workdir, config.to_dict())
                reporting.rewind_metrics(workdir, first_step or 0)
            rest = (state, frozen, elapsed, tx, report, begun)
            return _run(config, workdir, stage, mesh, manager, batches, batch, *rest)


def _check(cfg) -> None:
    """Raises UserError for the first number of config.train that makes no sense."""
    least = dict(steps=1, minutes=0, learning_rate=0, warmup_steps=0, grad_clip=0, ema_decay=0, log_every=1)
    for field, bound in (least | dict(val_every=0, checkpoint_every=0, keep=1)).items():
        if not cfg[field] >= bound:
            raise UserError(f"train.{field} must be at least {bound}, got {cfg[field]}.")
    if cfg.ema_decay >= 1:
        raise UserError(f"train.ema_decay must be below 1, got {cfg.ema_decay}.")


def _create_state(config, stage, params, tx):
    disc = stage.adversary.init(stream(config.seed, "disc")) if stage.adversary else None
    return create_state(params, tx, config.train.ema_decay, disc)


def _fresh(config, workdir, stage, mesh, manager, batch, tx, say):
    given = start.given_weights(config.to_dict(), workdir, say)
    params, frozen = start.start_weights(stage, given, stream(config.seed, "params"), batch)
    if jax.process_index() == 0:
        checkpoint.write_frozen(workdir, jax.device_get(frozen))
    params, frozen = replicate(params, mesh), replicate(frozen, mesh)
    return replicate(_create_state(config, stage, params, tx), mesh), frozen, 0.0


def _resume(config, workdir, stage, mesh, manager, batch, tx, say):
    shapes, _ = start.split(jax.eval_shape(stage.init, stream(config.seed, "params"), batch), stage.trained)
    like = jax.eval_shape(lambda params: _create_state(config, stage, params, tx), shapes)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), like)
    state, elapsed = checkpoint.restore(manager, like)
    frozen = replicate(storage.read_frozen(workdir), mesh)
    say(f"Resuming {workdir} at step {int(state.step)}.")
    return state, frozen, elapsed


def _compile(step_fn, state: TrainState, frozen, batch, workdir, say):
    """Compiles the training step ahead of its first call, and says what it trains and costs."""
    compiled = step_fn.lower(state, frozen, batch, np.float32(0)).compile()
    frozen = {name: tree for name, tree in frozen.items() if name != "lpips"}
    text = overview.describe(state.params, frozen, compiled, len(state.step.sharding.device_set))
    say(text)
    if jax.process_index() == 0:
        overview.write_overview(workdir, text, state.params, frozen)
    return compiled


def _share(cfg, step, elapsed) -> float:
    """The part of the training that is done, by steps or by minutes."""
    return max(step / max(cfg.steps, 1), elapsed / (60 * cfg.minutes) if cfg.minutes else 0.0)


def _run(
    config, workdir, stage, mesh, manager, batches, batch, state: TrainState, frozen, elapsed, tx, report, begun
) -> dict:
    cfg, main, began = config.train, jax.process_index() == 0, time.monotonic() - elapsed
    step, record, metrics = int(state.step), {}, {}
    first_step, adversary_from = step, stage.adversary.start if stage.adversary else math.inf
    key, sharding = stream(config.seed, "train"), replicated(mesh)
    make_step = partial(make_train_step, stage.loss_fn, tx, key, cfg.ema_decay, sharding, accumulate=cfg.accumulate)
    plain_step, adversarial_step = make_step(path=stage.path), make_step(adversary=stage.adversary)
    if stage.lpips:
        frozen = {**frozen, "lpips": replicate(stage.lpips, mesh)}
    step_fn = adversarial_step if step >= adversary_from else plain_step
    step_fn = _compile(step_fn, state, frozen, batch, workdir, report.say)
    eval_fn = jax.jit(stage.eval_fn, out_shardings=replicated(mesh))
    val_key, val_batch = stream(config.seed, "val"), shard_batch(data.val_batch(config.data), mesh)
    step, record, metrics = int(state.step), {}, {}
    share, rate = _share(cfg, step, elapsed), learning_rate(cfg)
    pending, mark = [], None  # metrics on the device since the last log; time and step from which steps/s counts

    with (
        _stop_signals(report.say) as stopped,
        reporting.recorder(workdir, step, tensorboard=cfg.tensorboard, quiet=not main) as write,
        overview.tracer(workdir, cfg.profile_start, cfg.profile_steps if main else 0) as on_step,
    ):
        while True:
            on_step(step + 1, metrics)
            if step == adversary_from and step > first_step:
                step_fn = adversarial_step
            state, metrics = step_fn(state, frozen, batch, np.float32(share))
            step += 1
            pending.append((step, metrics))
            if mark is None:  # the first step warms up
                jax.block_until_ready(metrics)
                mark = time.monotonic(), step
                begun()
            elif len(pending) > 1:
                jax.block_until_ready(pending[-2][1])  # at most two steps in flight, so that time and Ctrl-C are true
            elapsed = _agree(time.monotonic() - began, elapsed, step, cfg.log_every)
            lr_at, share = (step - 1, share), _share(cfg, step, elapsed)
            last = share >= 1 or bool(stopped)
            log = last or step % cfg.log_every == 0
            validate = last or (cfg.val_every and step % cfg.val_every == 0)
            save = last or (cfg.checkpoint_every and step % cfg.checkpoint_every == 0)

            if log or validate or save:
                means = _fetch(pending, workdir, manager)
                if log:
                    now = time.monotonic()
                    speed = (step - mark[1]) / (now - mark[0]) if step > mark[1] else 0.0
                    record = {"step": step, "time": round(now - began, 3), **means, "steps_per_s": round(speed, 4)}
                    record["learning_rate"] = float(rate(*lr_at))
                    terms = "  ".join(f"{k} {v:.4g}" for k, v in means.items())
                    report.show(min(share, 1.0), f"step {step}/{cfg.steps}  {speed:.2f} steps/s  {terms}")
                    pending = []
            val, panels = {}, None
            if validate:
                val, panels = jax.device_get(eval_fn(state.average, frozen, val_batch, val_key))
                val = {f"val/{k}": float(v) for k, v in val.items()}
                report.say(f"Validation at step {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in val.items()))
                record = {"step": step, "time": round(time.monotonic() - began, 3), **(record if log else {}), **val}
            if log or validate:
                write(record, panels)
            if save:
                checkpoint.save(manager, state, time.monotonic() - began, val.get("val/loss"))
            if last:
                break
            if log or validate or save:
                mark = time.monotonic(), step
            batch = shard_batch(next(batches), mesh)
        manager.wait_until_finished()
    if stopped:
        raise KeyboardInterrupt
    return record


def _fetch(pending, workdir, manager) -> dict:
    """Means the metrics of `pending` steps. Raises: UserError naming the first step that is not finite."""
    if not pending:
        return {}
    values = jax.device_get([metrics for _, metrics in pending])
    for (step, _), metrics in zip(pending, values):
        if bad := [k for k, v in metrics.items() if not np.isfinite(v)]:
            manager.wait_until_finished()
            good = manager.latest_step()
            kept = f"the last good checkpoint is step {good}" if good is not None else "there is no checkpoint yet"
            raise UserError(
                f"{' and '.join(bad)} stopped being finite at step {step} of {workdir}; {kept}. "
                "Lower --config.train.learning_rate or --config.train.grad_clip and start again."
            )
    return {k: float(np.mean([m[k] for m in values])) for k in values[0]}


def _agree(elapsed: float, before: float, step: int, every: int) -> float:
    """Gives all processes one time, so that they stop together: the first one's, asked now and then."""
    if jax.process_count() == 1:
        return elapsed
    return float(multihost_utils.broadcast_one_to_all(np.float32(elapsed))) if step % every == 0 else before


@contextmanager
def _stop_signals(say) -> Iterator[list]:
    """Collects the first SIGINT or SIGTERM, so that the loop ends with a checkpoint; a second one stops at once."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        yield stopped
        return

    def handle(number, frame):
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)
        say("Stopping after this step with a checkpoint; once more stops at once.")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
