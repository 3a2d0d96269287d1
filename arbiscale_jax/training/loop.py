"""The one training loop: start or resume, step, log, validate, checkpoint, stop."""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from arbiscale_jax import data, storage
from arbiscale_jax.data import synthesis
from arbiscale_jax.errors import UserError

from . import align, cache, checkpoint, diffusion, first_stage, overview, reporting, start, survival
from .made import example_settings, state_maker
from .mesh import (
    batch_sharding,
    check_batch_size,
    local_rows,
    make_mesh,
    replicate,
    replicated,
    shard_batch,
    shard_rows,
    state_sharding,
)
from .optimizer import learning_rate, make_optimizer
from .stage import Stage, check_least
from .state import TrainState
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
    stage's predecessor, else from scratch. It ends with a validation and a checkpoint, on a signal with a checkpoint.
    What fails before the first update leaves nothing behind in the work directory. Where JAX runs over several
    processes, all call this with the same arguments, and with a work directory that they share.
    Args: config, a ConfigDict like config.get_base_config's; workdir, of config.json, checkpoints, metrics, samples.
    Returns: the last record of metrics.jsonl.
    Raises: UserError for what the user can mend, a non-finite loss among it; KeyboardInterrupt after saving.
    """
    workdir, cfg = Path(workdir), config.train
    _check(config)
    stage, mesh = build_stage(config), make_mesh(fsdp=cfg.fsdp)
    tx = make_optimizer(learning_rate(cfg), grad_clip=cfg.grad_clip)
    check_batch_size(cfg.batch_size, mesh, cfg.accumulate)
    cache.check(config)
    reporting.check_tensorboard(cfg.tensorboard)
    overview.check_profile(cfg.profile_start, cfg.profile_steps)
    main = jax.process_index() == 0
    with (
        checkpoint.provisional(workdir, MADE) as begun,
        reporting.progress(workdir.name, quiet=not main) as report,
    ):
        first_step = _newest_step(workdir)
        if first_step is not None:
            checkpoint.check_resumable(workdir, config.to_dict())
            if _share(cfg, first_step, checkpoint.read_elapsed(workdir)) >= 1:
                report.say(f"{workdir} is complete at step {first_step}; to go on raise train.steps or train.minutes.")
                return next(iter(reporting.read_metrics(workdir)[::-1]), {"step": first_step})
        begin, rows = partial(_resume, report.say), local_rows(cfg.batch_size, mesh)
        if first_step is None:  # a predecessor that is missing is told before anything starts
            begin = partial(_fresh, start.given_weights(config.to_dict(), workdir, report.say))
        with closing(_batches(config, first_step or 0, rows, mesh)) as batches:
            batch = next(batches)
            with checkpoint.open_manager(workdir, cfg.keep) as manager:
                state, frozen, elapsed = begin(config, workdir, stage, mesh, manager, batch, tx)
                if config.data.latent_cache:
                    batches.close()
                    given = cache.cached_batches(config, frozen, first_step or 0, rows, report)
                    _check_space(cfg, workdir, manager, state)  # the latents may lie on the same disk
                    batches = _on_devices(given, rows, cfg.batch_size, mesh)
                    batch = next(batches)
                if main:
                    checkpoint.write_config(workdir, config.to_dict())
                    reporting.rewind_metrics(workdir, first_step or 0)
                rest = (state, frozen, elapsed, tx, report, begun)
                return _run(config, workdir, stage, mesh, manager, batches, batch, *rest)


def _newest_step(workdir: Path) -> int | None:
    """Finds the checkpoint to resume from. Raises: UserError where the processes of one run see different ones."""
    step = storage.newest_step(workdir)
    if jax.process_count() > 1:
        seen = multihost_utils.process_allgather(np.int32(-1 if step is None else step))
        if len(set(seen.tolist())) > 1:
            raise UserError(
                f"The processes see different checkpoints in {workdir} (newest steps {seen.tolist()}, -1: none); set "
                "--workdir to a folder that all hosts share."
            )
    return step


def _batches(config, start_step: int, rows: list[int], mesh) -> Iterator[dict]:
    """Iterates over the batches of training on the devices: read and prepared by the host, or made on the devices."""
    size = config.train.batch_size
    if not config.data.synthesis.enabled:
        return _on_devices(data.train_batches(config.data, config.seed, size, start_step, rows), rows, size, mesh)
    variants, settings = example_settings(config)
    store = replicate(synthesis.store_from_config(config.data), mesh)
    return synthesis.batches(store, variants, settings, config.seed, size, start_step, batch_sharding(mesh))


def _on_devices(batches: Iterator[dict], rows: list[int], batch_size: int, mesh) -> Iterator[dict]:
    """Puts this process's rows of each batch on its devices; the end closes `batches`."""
    with closing(batches):
        for batch in batches:
            yield shard_rows(batch, rows, batch_size, mesh)


def _check(config) -> None:
    """Raises UserError for the first number of config.train that makes no sense."""
    least = dict(steps=1, minutes=0, learning_rate=0, warmup_steps=0, grad_clip=0, ema_decay=0, log_every=1)
    least |= dict(val_every=0, checkpoint_every=0, keep=1)
    check_least(config, {f"train.{field}": bound for field, bound in least.items()})
    if config.train.ema_decay >= 1:
        raise UserError(f"train.ema_decay must be below 1, got {config.train.ema_decay}.")


def _state_maker(config, stage, tx, mesh, params):
    """Returns the function that makes a fresh state of `params` (arrays or shapes), and its result's shapes, placed."""
    create = state_maker(config, stage, tx)
    shapes = jax.eval_shape(create, params)
    places = state_sharding(shapes, mesh, config.train.fsdp_least)
    return create, jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places)


def _fresh(given, config, workdir, stage, mesh, manager, batch, tx):
    params, frozen = start.start_weights(stage, given, stream(config.seed, "params"), batch)
    create, like = _state_maker(config, stage, tx, mesh, params)
    _check_space(config.train, workdir, manager, like, survival.tree_bytes(frozen))
    if jax.process_index() == 0:
        checkpoint.write_frozen(workdir, jax.device_get(frozen))
    places = jax.tree.map(lambda x: x.sharding, like)
    params, frozen = jax.device_put(params, places.params), replicate(frozen, mesh)
    return jax.jit(create, out_shardings=places)(params), frozen, 0.0


def _resume(say, config, workdir, stage, mesh, manager, batch, tx):
    shapes, _ = start.split(jax.eval_shape(stage.init, stream(config.seed, "params"), batch), stage.trained)
    _, like = _state_maker(config, stage, tx, mesh, shapes)
    _check_space(config.train, workdir, manager, like)
    state, elapsed = checkpoint.restore(manager, like)
    frozen = replicate(storage.read_frozen(workdir), mesh)
    say(f"Resuming {workdir} at step {int(state.step)}.")
    return state, frozen, elapsed


def _check_space(cfg, workdir, manager, state, more: int = 0) -> None:
    """Raises: UserError if the disk has no room for `more` bytes and the checkpoints that the run will keep.

    These are the newest train.keep, the best and one being written, less those that are there; a run may make fewer.
    """
    done = manager.all_steps()
    left = max(cfg.steps - max(done, default=0), 1)
    made = -(-left // cfg.checkpoint_every) if cfg.checkpoint_every else 1
    num = max(min(cfg.keep + 2 - len(done), made), 1)
    survival.check_space(workdir, num * survival.tree_bytes(state) + more)


def _compile(step_fn, state: TrainState, frozen, batch, workdir, say):
    """Compiles the training step ahead of its first call, and says what it trains and costs."""
    compiled = step_fn.lower(state, frozen, batch, np.float32(0)).compile()
    frozen = {name: tree for name, tree in frozen.items() if name != "lpips"}
    text = overview.describe(state.params, frozen, compiled, len(state.step.sharding.device_set))
    say(text)
    if jax.process_index() == 0:
        overview.write_overview(workdir, text, state.params, frozen)
    return compiled


def _shapes(batch: dict) -> tuple:
    """Tells batches apart that need programs of their own."""
    return tuple((name, x.shape) for name, x in sorted(batch.items()))


def _share(cfg, step, elapsed) -> float:
    """The part of the training that is done, by steps or by minutes."""
    return max(step / max(cfg.steps, 1), elapsed / (60 * cfg.minutes) if cfg.minutes else 0.0)


def _run(
    config, workdir, stage, mesh, manager, batches, batch, state: TrainState, frozen, elapsed, tx, report, begun
) -> dict:
    cfg, main, began = config.train, jax.process_index() == 0, time.monotonic() - elapsed
    step, record, metrics = int(state.step), {}, {}
    first_step, adversary_from = step, stage.adversary.start if stage.adversary else math.inf
    key, sharding = stream(config.seed, "train"), (jax.tree.map(lambda x: x.sharding, state), replicated(mesh))
    make_step = partial(make_train_step, stage.loss_fn, tx, key, cfg.ema_decay, sharding, accumulate=cfg.accumulate)
    plain_step, adversarial_step = make_step(path=stage.path), make_step(adversary=stage.adversary, path=stage.path)
    if stage.lpips:
        frozen = {**frozen, "lpips": replicate(stage.lpips, mesh)}
    step_fn = adversarial_step if step >= adversary_from else plain_step
    programs = {_shapes(batch): _compile(step_fn, state, frozen, batch, workdir, report.say)}
    eval_fn = jax.jit(stage.eval_fn, out_shardings=replicated(mesh))
    val_key, val_batch = stream(config.seed, "val"), shard_batch(data.val_batch(config.data), mesh)
    share, rate = _share(cfg, step, elapsed), learning_rate(cfg)
    pending, mark = [], None  # metrics on the device since the last log; time and step from which steps/s counts

    with (
        survival.stop_signals(report.say) as stopping,
        reporting.recorder(workdir, step, tensorboard=cfg.tensorboard, quiet=not main) as write,
        overview.tracer(workdir, cfg.profile_start, cfg.profile_steps if main else 0) as on_step,
    ):
        while True:
            on_step(step + 1, metrics)
            if step == adversary_from and step > first_step:
                step_fn, programs = adversarial_step, {}
            run = programs.setdefault(_shapes(batch), step_fn)  # a later program is compiled when it is first called
            state, metrics = run(state, frozen, batch, np.float32(share))
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
            stopped = stopping(step)
            last = share >= 1 or stopped
            soon = stopped and share < 1  # a cluster's grace may be shorter than a validation with its compilation
            log = last or step % cfg.log_every == 0
            validate = not soon and (last or (cfg.val_every and step % cfg.val_every == 0))
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
            batch = next(batches)
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
