"""Records every start of a run, and allows a resumed run to change only what keeps its results comparable.

config.json is the configuration of the newest start. starts.jsonl has one line per start: the first with the whole
configuration, the later ones with what they changed.
"""

import json
import time
from pathlib import Path

import jax

import arbiscale_jax
from arbiscale_jax import models
from arbiscale_jax.artifacts.model_fields import check_model
from arbiscale_jax.artifacts.storage import CONFIG, read_config
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import write_text

STARTS = "starts.jsonl"
FREE = (  # fields, or groups of fields, that a resumed run may change
    *("train.steps", "train.minutes"),  # the length of the training
    *("train.learning_rate", "train.grad_clip"),  # the remedy for a loss that stopped being finite
    *("train.warmup_steps", "train.schedule", "train.final_lr"),
    *("train.log_every", "train.val_every", "train.checkpoint_every", "train.keep", "train.tensorboard"),
    *("train.profile_start", "train.profile_steps"),
    *("train.fsdp", "train.fsdp_least", "train.remat", "train.accumulate"),  # the use of devices and their memory
    *("data.workers", "data.cache_gib", "data.root"),  # how and from where the same data is read
    *("first_stage", "init_from"),  # where the weights of a fresh run came from
    "model.sampling",  # defaults for sampling
)


def differences(old, new, name: str = "") -> dict[str, tuple]:
    """Compares two JSON-like values.

    Returns:
      A dict from the dotted name of each field that differs to (old value, new value), with None for an absent field.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in (*old, *(k for k in new if k not in old)):
            found |= differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        return found
    plain_old, plain_new = (json.loads(json.dumps(x)) for x in (old, new))  # JSON has no tuples
    return {} if plain_old == plain_new else {name: (old, new)}


def is_free(field: str) -> bool:
    """Tells whether a resumed run may change the field of this dotted name."""
    return any(field == free or field.startswith(f"{free}.") for free in FREE)


def check_resumable(run_dir: Path, config: dict) -> dict[str, tuple]:
    """Compares `config` with the configuration of the run's newest start.

    A field that the version of this package which started the run did not know does not count as a difference.

    Returns:
      The fields that change, {dotted name: (old value, new value)}.

    Raises:
      UserError: if a field may not change, which it names with both values, or config.json is damaged.
    """
    old = read_config(run_dir)
    old = {**old, "model": check_model(old, run_dir / CONFIG)}
    config = {**config, "model": models.complete(config["model"])}
    found = {field: pair for field, pair in differences(old, config).items() if is_free(field) or _known(old, field)}
    for field, (before, now) in found.items():
        if not is_free(field):
            raise UserError(
                f"{run_dir} was started with {field}={before!r}, and this call has {now!r}; resume it with its own "
                "configuration or set another --workdir."
            )
    return found


def _known(config: dict, field: str) -> bool:
    """Tells whether `config` has the field of this dotted name."""
    *groups, last = field.split(".")
    section: object = config
    for group in groups:
        section = section.get(group) if isinstance(section, dict) else None
    return isinstance(section, dict) and last in section


def record_start(run_dir: Path, config: dict, step: int, changed: dict[str, tuple]) -> None:
    """Writes config.json and adds a line to starts.jsonl.

    Args:
      run_dir: the directory of the run.
      config: the resolved configuration.
      step: the number of updates done before this start.
      changed: the changed fields, see `check_resumable`.
    """
    about = {
        "step": step,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "arbiscale_jax": arbiscale_jax.__version__,
        "jax": jax.__version__,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    starts = read_starts(run_dir)
    if not starts and (run_dir / CONFIG).is_file() and step:  # started by a version that did not record starts
        starts = [{"step": 0, "config": read_config(run_dir)}]
    about |= {"changed": {k: list(pair) for k, pair in changed.items()}} if starts else {"config": config}
    write_text(run_dir / STARTS, "".join(json.dumps(line) + "\n" for line in (*starts, about)))
    write_text(run_dir / CONFIG, json.dumps(config, indent=2) + "\n")


def read_starts(run_dir: Path) -> list[dict]:
    """Reads starts.jsonl; the list is empty if there is no such file."""
    path = Path(run_dir) / STARTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
