"""Runs the training loop of all stages: it starts or resumes, then steps, logs, validates and saves until the end."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path

import jax
import numpy as np

from arbiscale_jax.artifacts import storage
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.mesh import check_batch_size, local_rows, make_mesh, replicate
from arbiscale_jax.runtime.progress import run_progress
from arbiscale_jax.runtime.random import whole_seed

from . import begin, cache, checkpoint, history, overview, reporting, start, survival
from .batches import on_devices, train_batches
from .clock import Clock, agreed
from .due import describe_end, describe_step, format_terms, share_done, what_is_due
from .label_config import with_labels
from .optimizer import optimizer_from_config
from .pending import Pending
from .programs import make_programs, make_validation
from .run import Run
from .stages import build_stage
from .stages.stage import check_least

MADE = (  # names of what a run writes before its first step is done
    *(storage.CONFIG, history.STARTS, storage.FROZEN, storage.CHECKPOINTS, overview.OVERVIEW, overview.PROFILE),
    *(reporting.METRICS, reporting.TENSORBOARD),
)


def train(config, workdir: Path | str) -> dict:
    """Trains one stage until train.steps updates or train.minutes of training are done, whichever comes first.

    A work directory that holds checkpoints is resumed from the newest one. Otherwise the weights come from `init_from`
    and from the stage's predecessor, and the rest starts at random. The run ends with a validation and a checkpoint, or
    after a signal with a checkpoint only. A run that fails before its first update leaves nothing behind in the work
    directory. If JAX runs over several processes, all of them call this with the same arguments and a shared work
    directory.

    Args:
      config: a ConfigDict like that of experiments.get_base_config.
      workdir: the directory for config.json, starts.jsonl, checkpoints, metrics and samples.

    Returns:
      The last record of metrics.jsonl.

    Raises:
      UserError: if something is wrong that the user can correct, such as a field, or a loss that is not finite.
      KeyboardInterrupt: if a signal ended the run, after the checkpoint is saved.
    """
    workdir, cfg = Path(workdir), config.train
    _check(config)
    config = with_labels(config, workdir)
    stage, mesh, optimizer = build_stage(config), make_mesh(fsdp=cfg.fsdp), optimizer_from_config(cfg)
    check_batch_size(cfg.batch_size, mesh, cfg.accumulate)
    with (
        checkpoint.provisional(workdir, MADE) as declare_begun,
        run_progress(workdir.name, quiet=jax.process_index() != 0) as report,
    ):
        run, first_step = Run(config, workdir, stage, mesh, optimizer, report), begin.newest_step(workdir)
        changed, given = {}, None
        if first_step is None:  # reports a missing predecessor before anything else starts
            given = start.given_weights(config.to_dict(), workdir, report.say)
        else:
            changed = history.check_resumable(workdir, config.to_dict())
            if _is_complete(run, first_step):
                return next(iter(reporting.read_metrics(workdir)[::-1]), {"step": first_step})
            for field, (before, now) in changed.items():
                report.say(f"{field} is now {now!r}; it was {before!r}.")
        with checkpoint.open_manager(workdir, cfg.keep) as manager, ExitStack() as stack:
            batches, beginning = _begin(run, first_step or 0, given, manager, stack)
            if run.is_main:
                history.record_start(workdir, config.to_dict(), first_step or 0, changed)
                reporting.rewind_metrics(workdir, first_step or 0)
            return _train(run, beginning, manager, batches, declare_begun)


def _check(config) -> None:
    """Raises UserError for the first field that makes no sense in any stage."""
    cfg = config.train
    least = dict(steps=1, minutes=0, learning_rate=0, warmup_steps=0, grad_clip=0, ema_decay=0, log_every=1)
    least |= dict(val_every=0, checkpoint_every=0, keep=1)
    whole_seed(config.seed)
    check_least(config, {f"train.{field}": bound for field, bound in least.items()})
    if cfg.ema_decay >= 1:
        raise UserError(f"train.ema_decay must be below 1, got {cfg.ema_decay}.")
    cache.check(config)
    reporting.check_tensorboard(cfg.tensorboard)
    overview.check_profile(cfg.profile_start, cfg.profile_steps)


def _is_complete(run: Run, step: int) -> bool:
    """Tells whether nothing is left to do after `step` updates, and if so tells the user."""
    spent, cfg = checkpoint.read_spent(run.workdir), run.config.train
    if share_done(cfg, step, spent.trained) < 1:
        return False
    run.report.say(f"{run.workdir}: {describe_end(cfg, step, spent.trained, spent.compiled)}")
    return True


def _begin(run: Run, first_step: int, given: dict | None, manager, stack: ExitStack) -> tuple:
    """Opens the batches, which `stack` closes, and makes the first state: from `given`, or restored if it is None."""
    config, rows = run.config, local_rows(run.config.train.batch_size, run.mesh)
    batches = stack.enter_context(closing(train_batches(config, first_step, rows, run.mesh)))
    batch = next(batches)
    if given is None:
        beginning = begin.begin_again(run, manager, batch)
    else:
        beginning = begin.begin_fresh(run, given, manager, batch)
    if config.data.latent_cache:
        batches.close()
        encoded = cache.cached_batches(config, beginning.frozen, first_step, rows, run.report)
        stack.enter_context(closing(encoded))
        begin.check_space(run, manager, beginning.state)  # again, since the latents may lie on the same disk
        batches = stack.enter_context(closing(on_devices(encoded, rows, config.train.batch_size, run.mesh)))
        batch = next(batches)
    return chain([batch], batches), beginning


def _train(run: Run, beginning: begin.Beginning, manager, batches: Iterable, declare_begun: Callable) -> dict:
    """Makes steps, each followed by what is due, until the run is complete or stopped, and returns the last record."""
    (state, frozen, spent), cfg = beginning, run.config.train
    if run.stage.lpips:
        frozen = {**frozen, "lpips": replicate(run.stage.lpips, run.mesh)}
    clock = Clock(spent)
    program_at, validate = make_programs(run, clock), make_validation(run, clock)
    step, seconds, record, metrics = int(state.step), spent.trained, {}, {}  # the same in all processes
    share, pending, stopped = share_done(cfg, step, seconds), Pending(clock), False
    with (
        survival.stop_signals(run.report.say) as stopping,
        reporting.recorder(run.workdir, step, tensorboard=cfg.tensorboard, quiet=not run.is_main) as write,
        overview.tracer(run.workdir, cfg.profile_start, cfg.profile_steps if run.is_main else 0) as on_step,
    ):
        for batch in batches:
            program = program_at(step, state, frozen, batch)
            on_step(step + 1, metrics)
            state, metrics = program(state, frozen, batch, np.float32(share))
            step += 1
            pending.add(step, metrics)
            declare_begun()
            seconds = agreed(clock.trained, seconds, step, cfg.log_every)
            share, stopped = share_done(cfg, step, seconds), stopping(step)
            now, val, panels = what_is_due(cfg, step, share, stopped), {}, None
            means = pending.means(run.workdir, manager) if now.anything else {}
            if now.anything:
                record = {"step": step, "time": round(clock.trained, 3)}
            if now.log:
                record |= means | {"steps_per_s": pending.steps_per_second}
                run.report.show(min(share, 1.0), describe_step(cfg, step, seconds, record))
                pending.clear()
            if now.validate:
                val, panels = validate(state, frozen)
                record |= val
                run.report.say(f"Validation at step {step}: " + format_terms(val))
            if now.log or now.validate:
                write(record, panels)
            if now.save:
                checkpoint.save(manager, state, clock, val.get("val/loss"))
            if now.last:
                break
            if now.anything:
                pending.restart()
        manager.wait_until_finished()
    if stopped:
        raise KeyboardInterrupt
    run.report.say(describe_end(cfg, step, seconds, clock.compiled))
    return record
