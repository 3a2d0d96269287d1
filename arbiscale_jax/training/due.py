"""Decides what follows a step and how far a run is, as pure functions of the configuration, the step and the time."""

from typing import NamedTuple

NOT_TERMS = ("step", "time", "steps_per_s", "learning_rate")  # entries of a record that are not terms of the loss


class Due(NamedTuple):
    """Says what follows a step."""

    log: bool  # write the metrics
    validate: bool  # run a validation
    save: bool  # write a checkpoint
    last: bool  # end the run

    @property
    def anything(self) -> bool:
        """Tells whether anything happens before the next step."""
        return self.log or self.validate or self.save


def share_done(cfg, step: int, seconds: float) -> float:
    """Returns the share of the training that is done, in updates or in minutes, whichever is larger.

    A share of 1 or more means that the training is complete.

    Args:
      cfg: config.train.
      step: the number of updates done.
      seconds: the seconds of training.
    """
    return max(_shares(cfg, step, seconds))


def _shares(cfg, step: int, seconds: float) -> tuple[float, float]:
    """Returns the shares that are done of train.steps and of train.minutes, which is 0 without a limit."""
    return step / max(cfg.steps, 1), seconds / (60 * cfg.minutes) if cfg.minutes else 0.0


def what_is_due(cfg, step: int, share: float, stopped: bool) -> Due:
    """Decides what follows step `step`, counted from 1.

    The last step is logged, validated and saved. If a signal ended the run, there is no validation, because its
    compilation may take longer than a cluster allows.

    Args:
      cfg: config.train.
      step: the number of updates done.
      share: the share of the training that is done, see `share_done`.
      stopped: whether a signal asked the run to end.
    """

    def every(field: str) -> bool:
        return bool(cfg[field]) and step % cfg[field] == 0

    complete = share >= 1
    last = complete or stopped
    validate = complete or (every("val_every") and not stopped)
    return Due(last or every("log_every"), validate, last or every("checkpoint_every"), last)


def describe_step(cfg, step: int, seconds: float, record: dict) -> str:
    """Describes in one line how far a run is, how fast it is, and its metrics.

    The progress is given in minutes if they will end the run, and in steps otherwise.

    Args:
      cfg: config.train.
      step: the number of updates done.
      seconds: the seconds of training.
      record: the newest record of metrics.jsonl.
    """
    by_steps, by_minutes = _shares(cfg, step, seconds)
    if by_minutes > by_steps:
        place = f"{seconds / 60:.3g} of {cfg.minutes:g} min, step {step:,}"
    else:
        place = f"step {step:,} of {cfg.steps:,}"
    terms = {name: value for name, value in record.items() if name not in NOT_TERMS}
    return f"{place}  {record['steps_per_s']:.2f} steps/s  {format_terms(terms)}"


def format_terms(terms: dict[str, float]) -> str:
    """Formats terms as "name value  name value ..."."""
    return "  ".join(f"{name} {value:.4g}" for name, value in terms.items())


def describe_end(cfg, step: int, seconds: float, compiled: float) -> str:
    """Describes what ended a run, how long it trained and compiled, and how to continue it."""
    spent = f"{step:,} updates in {seconds / 60:.3g} min of training, besides {compiled / 60:.3g} min of compilation"
    if step >= cfg.steps:
        return f"Complete: {spent}."
    part = 100 * step / cfg.steps
    return (
        f"Ended by train.minutes={cfg.minutes:g}: {spent}. That is {part:.2g} % of train.steps={cfg.steps:,}; "
        "the same command with more --config.train.minutes goes on."
    )
