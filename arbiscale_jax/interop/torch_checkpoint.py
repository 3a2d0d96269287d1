"""Reads the reference implementation's PyTorch checkpoints."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import traverse_util

from arbiscale_jax import models
from arbiscale_jax.errors import UserError
from arbiscale_jax.inference import Model

from . import layout
from .arch import model_config, read_arch

UNET, EMA, FIRST_STAGE = "model.diffusion_model.", "model_ema.", "first_stage_model."


def load_torch(path: str | Path, arch: Mapping | str | Path, ema: bool = False) -> Model:
    """Loads a diffusion checkpoint of the reference implementation, its first stage included.

    Args: path, the file (a state dict, or a dict holding one); arch, the mapping of its configuration, or a JSON file
      with it; ema, the U-Net's averaged weights instead of the raw ones.
    Returns: a Model in float32.
    Raises: UserError if the file is unreadable, holds no weights, or has a missing, unexpected or wrongly shaped key.
    """
    arch, path = read_arch(arch), Path(path)
    state = read_state_dict(path)
    model = model_config(arch)
    first_stage = _under(state, FIRST_STAGE)
    if not first_stage and any(key.startswith("encoder.") for key in state):
        first_stage = dict(state)
    if not first_stage:
        raise UserError(
            f"{path} holds no first stage: no key starts with {FIRST_STAGE} or encoder.; is it another model's file?"
        )
    first_stage = {k: v for k, v in first_stage.items() if not k.startswith("loss.")}
    model["first_stage"]["decoder_attention"] = _decoder_rule(model["first_stage"], first_stage)
    params = {
        "first_stage": convert(
            layout.first_stage_entries(model), first_stage, f"{path}, first stage", model, "first_stage"
        )
    }
    unet = _ema_state(state, model, path) if ema else _under(state, UNET)
    if unet:
        params["unet"] = convert(layout.unet_entries(model), unet, f"{path}, U-Net", model, "unet")
    elif any(key.startswith(FIRST_STAGE) for key in state):
        raise UserError(f"{path} holds no U-Net: no key starts with {UNET}.")
    scale_factor = float(state["scale_factor"]) if "scale_factor" in state else float(arch.get("scale_factor", 1.0))
    return Model(model, params, scale_factor)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file without running anything in it: name -> array.

    Raises: UserError if it is missing, is no PyTorch file, or needs more than tensors to be unpickled.
    """
    try:
        import torch
    except ImportError as e:
        raise UserError("Reading a PyTorch file needs torch: pip install 'arbiscale_jax[interop]'.") from e
    if not path.is_file():
        raise UserError(f"There is no checkpoint file {path}.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as e:
        reason = str(e).strip().split("\n")[0]
        raise UserError(f"{path} cannot be read as a PyTorch checkpoint of plain tensors: {reason}") from e
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, not a state dict.")
    state = {k: v.detach().float().numpy() for k, v in found.items() if isinstance(v, torch.Tensor)}
    if not state:
        raise UserError(f"{path} holds no tensors.")
    return state


def convert(entries, state: Mapping[str, np.ndarray], where: str, model: Mapping, part: str) -> dict:
    """Turns a part's tensors into our parameter tree; every key must be used and fit.

    Raises: UserError naming the missing, unexpected or wrongly shaped key.
    """
    wanted, ours, unused = expected_shapes(model, part), {}, set(state)
    for entry in entries:
        names = layout.tensors(entry)
        for name in names:
            if name not in state:
                raise UserError(f"{where}: the key {name} is missing; does arch describe this file?")
        converted = layout.to_ours(entry, [state[name] for name in names])
        for leaf, array in converted.items():
            if wanted.get(leaf) != array.shape:
                shapes = ", ".join(f"{name} {state[name].shape}" for name in names)
                raise UserError(
                    f"{where}: {shapes} does not fit arch, which needs {wanted.get(leaf)} at {'/'.join(leaf)}."
                )
        ours.update(converted)
        unused.difference_update(names)
    if unused:
        raise UserError(
            f"{where}: the key {min(unused)} is unexpected (with {len(unused) - 1} more); does arch describe this file?"
        )
    missing = set(wanted) - set(ours)
    assert not missing, f"layout lacks {missing}"
    return traverse_util.unflatten_dict({k: np.ascontiguousarray(v, np.float32) for k, v in ours.items()})


def expected_shapes(model: Mapping, part: str) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of our parameters of `part` (first_stage or unet), by shape evaluation."""
    import jax
    import jax.numpy as jnp

    f, c = models.spatial_factor(model), model["first_stage"]["z_channels"]
    key, z = jax.random.key(0), jnp.zeros((1, 8, 8, c))
    if part == "unet":
        condition = z if model["condition"]["enabled"] else None
        shapes = jax.eval_shape(models.build_unet(model).init, key, z, jnp.zeros(1, jnp.int32), condition)
    else:
        window = models.axis(8, 8)
        shapes = jax.eval_shape(
            models.build_first_stage(model).init, key, jnp.zeros((1, 8 * f, 8 * f, 3)), window, window
        )
    return {k: v.shape for k, v in traverse_util.flatten_dict(shapes["params"]).items()}


def _under(state: Mapping, prefix: str) -> dict:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _ema_state(state: Mapping, model: Mapping, path: Path) -> dict:
    """The averaged U-Net under its ordinary names; the file drops their dots."""
    averaged = _under(state, EMA + "diffusion_model")
    if not averaged:
        raise UserError(f"{path} holds no averaged weights ({EMA}*); load it with ema=False.")
    names = {name.replace(".", ""): name for entry in layout.unet_entries(model) for name in layout.tensors(entry)}
    return {names.get(key, f"{EMA}{key}"): value for key, value in averaged.items()}


def _decoder_rule(first_stage: Mapping, state: Mapping) -> str:
    """Which of the two placements of attention in D the file's keys show."""
    levels = {int(key.split(".")[4]) for key in state if key.startswith("decoder.decoder.1.up.") and ".attn." in key}
    doubled = models.attention_levels({**first_stage, "decoder_attention": "doubled"}, "decoder")
    constant = models.attention_levels({**first_stage, "decoder_attention": "constant"}, "decoder")
    return "doubled" if levels == set(doubled) != set(constant) else "constant"
