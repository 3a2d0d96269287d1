"""Reads a model's config.json, to refuse what the model cannot do before pictures or weights are read."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from arbiscale_jax.cli import sampling
from arbiscale_jax.errors import UserError


class Settings(NamedTuple):
    """Holds what is known of a model without its weights."""

    folder: Path
    config: dict  # the `model` part of its config.json, complete
    sampling: dict  # the options of sampling that count: those given, and the model's own for the others


def read(opts: dict, task: str) -> Settings:
    """Reads and checks the settings of the model that --model names; JAX is imported, and no device is started.

    Args:
      opts: the values of all flags.
      task: upscale or generate.

    Returns:
      The settings.

    Raises:
      UserError: if there is no such model, or it cannot do the task or be sampled with these flags.
    """
    from arbiscale_jax.artifacts.registry import find_model, read_settings
    from arbiscale_jax.artifacts.storage import is_model
    from arbiscale_jax.artifacts.vocabulary import vocabulary_of
    from arbiscale_jax.inference.baseline_model import resolve_baseline
    from arbiscale_jax.inference.options import GUIDANCE, resolve
    from arbiscale_jax.inference.prompts import check_canvas, check_prompt
    from arbiscale_jax.models import spatial_factor

    folder = find_model(opts["model"])
    _, config = read_settings(folder)
    if not is_model(folder):
        raise UserError(f"{folder} has neither weights nor a checkpoint; train it first, or restore its files.")
    baseline = config.get("baseline")
    conditioned = baseline is not None or config["condition"]["enabled"]
    if task == "upscale" and not conditioned:
        raise UserError(
            f"--model={opts['model']} does not upscale, since it generates images from noise alone; give a "
            "super-resolution model, such as photos."
        )
    if task == "generate" and conditioned:
        raise UserError(
            f"--model={opts['model']} does not generate, since it needs an image to upscale; give a model without a "
            "condition, such as emoji."
        )
    if baseline is not None:
        used = resolve_baseline(baseline, sampling.given(opts))
        return Settings(folder, config, used._asdict() if used else {})
    given: dict[str, Any] = sampling.given(opts) | ({"start": 0.0} if task == "generate" else {})
    vocabulary = vocabulary_of(config)
    check_prompt(vocabulary, given.get("prompt"))
    check_canvas(given.get("canvas"), spatial_factor(config))
    used = resolve(config, given)._asdict()
    return Settings(folder, config, {name: x for name, x in used.items() if vocabulary or name not in GUIDANCE})


def fingerprint(folder: Path) -> str:
    """Returns a text that changes with the weights or the settings of a model: a hash, or the step of a run."""
    from arbiscale_jax.artifacts.storage import CONFIG, WEIGHTS, newest_step

    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    if not (folder / WEIGHTS).is_file():
        return f"{folder.resolve().name} at step {newest_step(folder)}, {digest.hexdigest()[:12]}"
    with (folder / WEIGHTS).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name}, {digest.hexdigest()[:12]}"
