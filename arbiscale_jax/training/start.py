"""Finds the weights of a fresh run: those of the stage before it, of `init_from`, or random ones."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from arbiscale_jax.artifacts.fit import check_fit
from arbiscale_jax.artifacts.model_fields import check_model
from arbiscale_jax.artifacts.storage import (
    CONFIG,
    flatten,
    is_model,
    locate,
    merge,
    missing_parts,
    read_config,
    read_weights,
    unflatten,
)
from arbiscale_jax.artifacts.vocabulary import vocabulary_of
from arbiscale_jax.errors import MissingPredecessor, UserError

from .history import differences
from .stages.stage import Stage

PREDECESSORS = {"diffusion": ("first_stage", "decoder"), "align": ("diffusion",)}  # how their runs' names end
FIRST_STAGE_FIELDS = ("first_stage", "liif")  # the parts of `model` in which a first stage must agree
ALL_FIELDS = (*FIRST_STAGE_FIELDS, "unet", "schedule", "condition")
LABELS = ("unet/label_embed",)  # weights that a U-Net which knows no labels yet lacks; a fresh embedding adds nothing


def split(tree, paths: tuple[str, ...]) -> tuple[dict, dict]:
    """Splits a tree into the part under one of `paths` and the rest."""
    flat = flatten(tree)
    inside = {key for key in flat if any(key == p or key.startswith(p + "/") for p in paths)}
    taken, left = (unflatten({k: v for k, v in flat.items() if (k in inside) is wanted}) for wanted in (True, False))
    return taken, left


def check_fields(path: Path, config, fields) -> None:
    """Raises UserError if the model at `path` has other values in these parts of `model`, or a damaged config.json."""
    other = check_model(read_config(path), path / CONFIG)

    labelled = "unet" in other and vocabulary_of(other)
    free = {"dropout"} if labelled else {"dropout", "labels"}  # a U-Net without labels may learn some

    def networks(section):  # the details of a condition that is off do not matter
        if section.get("enabled") is False:
            return {"enabled": False}
        return {k: v for k, v in section.items() if k not in free}

    for name in fields:
        if (name in other) != (name in config["model"]):
            raise UserError(f"{path} is a model of another kind, without model.{name} or alone with it; give another.")
        pair = networks(other[name]), networks(config["model"][name])
        if found := differences(*pair, f"model.{name}"):
            field = next(iter(found))
            raise UserError(f"{path} was trained with another {field}; use the same config there and here.")


def take(path: Path, tree: dict, part: str) -> dict:
    """Returns {part: tree[part]}, and raises UserError if the model at `path` has no such part."""
    if part not in tree:
        raise UserError(f"{path} has no {part}; give a model that has one.")
    return {part: tree[part]}


def take_auto_encoder(path: Path, tree: dict) -> dict:
    """Returns {"first_stage": ...}, and raises UserError if a part of it is missing, as in an imported encoder."""
    if missing := missing_parts(tree):
        raise UserError(
            f"{path} lacks the weights of {', '.join(missing)}; set --config.first_stage=DIR to a run or model with "
            "the whole auto-encoder (stage first_stage makes one, with loss.freeze_encoder on a given encoder)."
        )
    return {"first_stage": tree["first_stage"]}


def predecessor(stage: str, workdir: Path) -> Path | None:
    """Returns the directory of the run before this one: runs/NAME_diffusion for runs/NAME_align; None for other names.

    Where several runs can precede, such as runs/NAME_first_stage and runs/NAME_decoder, it is the first that holds a
    model, or the first of all if none does.
    """
    if not workdir.name.endswith(f"_{stage}"):
        return None
    paths = [workdir.with_name(workdir.name.removesuffix(stage) + before) for before in PREDECESSORS[stage]]
    return next((path for path in paths if is_model(path)), paths[0])


def need_predecessor(stage: str, workdir: Path) -> Path:
    """Returns the directory of the run before this one.

    Raises:
      UserError: if it cannot be derived or holds no model; the message says how to train or name one.
    """
    path, before = predecessor(stage, workdir), " or ".join(PREDECESSORS[stage])
    option = "--config.first_stage=DIR" if stage == "diffusion" else "--config.init_from=DIR"
    if path is None:
        raise UserError(f"{workdir} does not end in _{stage}, so its {before} run cannot be derived; set {option}.")
    if not is_model(path):
        stem = workdir.name.removesuffix(stage)
        raise MissingPredecessor(
            f"Stage {stage} needs a trained {before}, and there is none in {path}; train it there or set {option}.",
            tuple(stem + name for name in PREDECESSORS[stage]),
        )
    return path


def given_weights(config: dict, workdir: Path, say: Callable[[str], None]) -> dict:
    """Collects the weights that a fresh run starts from.

    Args:
      config: the configuration of the run, as a dict.
      workdir: the directory of the run, from whose name that of its predecessor is derived.
      say: takes messages about the origin of the weights.

    Returns:
      A tree of weights with some of the keys first_stage, unet and scale_factor.

    Raises:
      UserError: if a predecessor is missing or has another architecture.
    """
    source = locate(config["init_from"]) if config["init_from"] else None
    first = locate(config["first_stage"]) if config["first_stage"] else None
    find = {
        "first_stage": _for_first_stage,
        "diffusion": _for_diffusion,
        "align": _for_align,
        "baseline": _for_baseline,
    }
    return find[config["stage"]](config, workdir, source, first, say)


def _take_first_stage(config, path, say) -> dict:
    say(f"Taking the first stage of {path}.")
    given = take_auto_encoder(path, read_weights(path))
    check_fields(path, config, FIRST_STAGE_FIELDS)
    return given


def _own_scale(source, tree: dict, given: dict, say) -> dict:
    """Returns the scale_factor of the source if its U-Net keeps the encoder that it was trained on, else nothing."""
    theirs, ours = (flatten(t.get("first_stage", {}).get("encoder", {})) for t in (tree, given))
    same = theirs.keys() == ours.keys() and all(
        np.shape(v) == np.shape(ours[k]) and np.allclose(v, ours[k], rtol=2e-3, atol=1e-5) for k, v in theirs.items()
    )  # equal up to half precision
    if not (theirs and same and "scale_factor" in tree):
        return {}
    say(f"Keeping the scale_factor of {source}, whose encoder this is.")
    return take(source, tree, "scale_factor")


def _for_first_stage(config, workdir, source, first, say):
    given = {}
    if source:
        say(f"Starting from {source}.")
        given = take(source, read_weights(source), "first_stage")
    if not config["loss"]["freeze_encoder"]:
        return given
    if not (first or source):
        raise UserError("loss.freeze_encoder needs a trained encoder; set --config.first_stage=DIR or .init_from=DIR.")
    if first:
        say(f"Taking the encoder of {first}.")
        encoder = take(first, take(first, read_weights(first), "first_stage")["first_stage"], "encoder")
        given = merge(given, {"first_stage": encoder})
    take(first or source, given["first_stage"], "encoder")
    return given


def _for_diffusion(config, workdir, source, first, say):
    given, tree = {}, {}
    if source:
        say(f"Starting the U-Net from {source}.")
        tree = read_weights(source)
        given = take(source, tree, "unet")
        check_fields(source, config, ("unet",))
    before = predecessor("diffusion", workdir)
    if first is None and not missing_parts(tree) and not (before and is_model(before)):
        check_fields(source, config, FIRST_STAGE_FIELDS)  # the U-Net keeps its own auto-encoder
        return given | take(source, tree, "first_stage") | take(source, tree, "scale_factor")
    given |= _take_first_stage(config, first or need_predecessor("diffusion", workdir), say)
    return given | _own_scale(source, tree, given, say)


def _for_align(config, workdir, source, first, say):
    source = source or need_predecessor("align", workdir)
    say(f"Aligning {source}.")
    tree = read_weights(source)
    given = take(source, tree, "unet") | take(source, tree, "scale_factor")
    check_fields(source, config, ALL_FIELDS)
    return given | (_take_first_stage(config, first, say) if first else take_auto_encoder(source, tree))


def _for_baseline(config, workdir, source, first, say):
    if source is None:
        return {}
    say(f"Starting from {source}.")
    check_fields(source, config, ("baseline",))
    return take(source, read_weights(source), "baseline")


def start_weights(stage: Stage, given: dict, key, batch) -> tuple[dict, dict]:
    """Fills in random weights for those that are not given, and splits them into trained and frozen ones.

    Returns:
      The trained weights.
      The frozen weights, with scale_factor if the stage has one.

    Raises:
      UserError: if `given` does not fit the networks of the stage.
    """
    scale = {k: v for k, v in given.items() if k == "scale_factor"}
    given = {k: v for k, v in given.items() if k != "scale_factor"}
    shapes = jax.eval_shape(stage.init, key, batch)
    needed = shapes if split(given, LABELS)[0] else split(shapes, LABELS)[1]
    check_fit(given, needed, "The given model", "this config", "use the config that the given model was trained with")
    known = flatten(given)

    def make(key, batch):
        return {k: v for k, v in flatten(stage.init(key, batch)).items() if k not in known}

    # compiled without optimisation, which would take several times longer for a program that runs once
    make = jax.jit(make, compiler_options={"xla_backend_optimization_level": 0})
    missing = unflatten(make(key, batch)) if set(flatten(shapes)) - set(known) else {}
    params, frozen = split(merge(missing, given), stage.trained)
    if stage.scale_factor and not scale:
        scale = {"scale_factor": jax.jit(stage.scale_factor)(frozen, batch, key)}
    return params, {**frozen, **(scale if stage.scale_factor else {})}
