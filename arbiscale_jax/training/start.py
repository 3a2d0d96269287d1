"""Where a fresh run's weights come from: its predecessor in the chain of stages, `init_from`, or scratch."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from arbiscale_jax import models
from arbiscale_jax.errors import UserError
from arbiscale_jax.storage import flatten, is_model, locate, merge, missing_parts, read_config, read_weights, unflatten

from . import checkpoint
from .stage import Stage

PREDECESSORS = {"diffusion": ("first_stage", "decoder"), "align": ("diffusion",)}  # the ends of their runs' names
FIRST_STAGE_FIELDS = ("first_stage", "liif")  # of `model`, which a predecessor must share
ALL_FIELDS = (*FIRST_STAGE_FIELDS, "unet", "schedule", "condition")


def split(tree, paths: tuple[str, ...]) -> tuple[dict, dict]:
    """Parts a tree into what lies under one of `paths` and the rest."""
    flat = flatten(tree)
    inside = {key for key in flat if any(key == p or key.startswith(p + "/") for p in paths)}
    return tuple(unflatten({k: v for k, v in flat.items() if (k in inside) is wanted}) for wanted in (True, False))


def check_fields(path: Path, config, fields) -> None:
    """Raises: UserError naming the field if the model at `path` was made with others."""
    other = read_config(path)
    other = models.complete(other.get("model", other))

    def networks(section):  # dropout is free to change; a condition that is off has no details
        if section.get("enabled") is False:
            return {"enabled": False}
        return {k: v for k, v in section.items() if k != "dropout"}

    for name in fields:
        pair = networks(other.get(name, {})), networks(config["model"][name])
        if field := checkpoint.first_difference(*pair, f"model.{name}"):
            raise UserError(f"{path} was trained with another {field}; use the same config there and here.")


def take(path: Path, tree: dict, part: str) -> dict:
    """Returns {part: tree[part]}. Raises: UserError if the model at `path` has none."""
    if part not in tree:
        raise UserError(f"{path} has no {part}; give a model that has one.")
    return {part: tree[part]}


def take_auto_encoder(path: Path, tree: dict) -> dict:
    """Returns {"first_stage": ...}. Raises: UserError if a part of it is absent, as where an encoder was imported."""
    if missing := missing_parts(tree):
        raise UserError(
            f"{path} lacks the weights of {', '.join(missing)}; set --config.first_stage=DIR to a run or model with "
            "the whole auto-encoder (stage first_stage makes one, with loss.freeze_encoder on a given encoder)."
        )
    return {"first_stage": tree["first_stage"]}


def predecessor(stage: str, workdir: Path) -> Path | None:
    """Derives the predecessor's directory: runs/NAME_align follows runs/NAME_diffusion; None for another name.

    Of several, as runs/NAME_first_stage and runs/NAME_decoder, it is the first that holds a model, else the first.
    """
    if not workdir.name.endswith(f"_{stage}"):
        return None
    paths = [workdir.with_name(workdir.name.removesuffix(stage) + before) for before in PREDECESSORS[stage]]
    return next((path for path in paths if is_model(path)), paths[0])


def need_predecessor(stage: str, workdir: Path) -> Path:
    """Returns the predecessor's directory. Raises: UserError saying how to make or name it, if it holds no model."""
    path, before = predecessor(stage, workdir), " or ".join(PREDECESSORS[stage])
    option = "--config.first_stage=DIR" if stage == "diffusion" else "--config.init_from=DIR"
    if path is None:
        raise UserError(f"{workdir} does not end in _{stage}, so its {before} run cannot be derived; set {option}.")
    if not is_model(path):
        first, *others = PREDECESSORS[stage]
        also = "".join(f" (or configs/{path.name.removesuffix(first)}{other}.py)" for other in others)
        raise UserError(
            f"Stage {stage} needs a trained {before}, and there is none in {path}; make it with "
            f"'python run_train.py --config configs/{path.name}.py --workdir {path}'{also} or set {option}."
        )
    return path


def given_weights(config: dict, workdir: Path, say: Callable[[str], None]) -> dict:
    """Collects the weights that a fresh run starts from, some of {"first_stage", "unet", "scale_factor"}.

    Raises: UserError if a predecessor is missing or of another architecture.
    """
    source = locate(config["init_from"]) if config["init_from"] else None
    first = locate(config["first_stage"]) if config["first_stage"] else None
    return {"first_stage": _for_first_stage, "diffusion": _for_diffusion, "align": _for_align}[config["stage"]](
        config, workdir, source, first, say
    )


def _take_first_stage(config, path, say) -> dict:
    say(f"Taking the first stage of {path}.")
    given = take_auto_encoder(path, read_weights(path))
    check_fields(path, config, FIRST_STAGE_FIELDS)
    return given


def _own_scale(source, tree: dict, given: dict, say) -> dict:
    """The source's scale_factor where its U-Net goes on with the encoder that it was trained on, else nothing."""
    theirs, ours = (flatten(t.get("first_stage", {}).get("encoder", {})) for t in (tree, given))
    same = theirs.keys() == ours.keys() and all(
        np.shape(v) == np.shape(ours[k]) and np.allclose(v, ours[k], rtol=2e-3, atol=1e-5) for k, v in theirs.items()
    )  # up to half precision
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
        check_fields(source, config, FIRST_STAGE_FIELDS)  # the U-Net keeps the auto-encoder that it was trained on
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


def check_fit(given: dict, shapes: dict) -> None:
    """Raises: UserError naming the first weight that the networks lack, miss or shape otherwise."""
    given, shapes = flatten(given), flatten(shapes)
    advice = "use the config that the given model was trained with"
    networks = {key.split("/")[0] if key.startswith("unet") else "/".join(key.split("/")[:2]) for key in given}
    for key, value in given.items():
        if key not in shapes:
            raise UserError(f"The networks of this config have no weight {key}; {advice}.")
        if np.shape(value) != shapes[key].shape:
            raise UserError(f"Weight {key} is {np.shape(value)} where this config needs {shapes[key].shape}; {advice}.")
    for key in shapes:
        if key not in given and any(key.startswith(n + "/") for n in networks):
            raise UserError(f"The given model lacks the weight {key}; {advice}.")


def start_weights(stage: Stage, given: dict, key, batch) -> tuple[dict, dict]:
    """Fills what was not given with random weights.

    Returns: params and frozen (with scale_factor, where the stage has one), trees of arrays.
    Raises: UserError if `given` does not fit the stage's networks.
    """
    scale = {k: v for k, v in given.items() if k == "scale_factor"}
    given = {k: v for k, v in given.items() if k != "scale_factor"}
    shapes = jax.eval_shape(stage.init, key, batch)
    check_fit(given, shapes)
    known = flatten(given)

    def make(key, batch):
        return {k: v for k, v in flatten(stage.init(key, batch)).items() if k not in known}

    # unoptimised: it runs once, and optimising random numbers takes XLA several times longer
    make = jax.jit(make, compiler_options={"xla_backend_optimization_level": 0})
    missing = unflatten(make(key, batch)) if set(flatten(shapes)) - set(known) else {}
    params, frozen = split(merge(missing, given), stage.trained)
    if stage.scale_factor and not scale:
        scale = {"scale_factor": jax.jit(stage.scale_factor)(frozen, batch, key)}
    return params, {**frozen, **(scale if stage.scale_factor else {})}
