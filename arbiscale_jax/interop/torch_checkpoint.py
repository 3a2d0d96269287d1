"""Reads PyTorch checkpoints of the reference implementation and of the CompVis latent-diffusion models."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from arbiscale_jax import models
from arbiscale_jax.artifacts.fit import network_shapes
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments.arch import model_config
from arbiscale_jax.experiments.arch_files import read_arch
from arbiscale_jax.inference import Model

from . import layout
from .checkpoint_files import Weights, is_floating, read_weights
from .ldm_schedule import BUFFERS, check_schedule

UNET, EMA, FIRST_STAGE = "model.diffusion_model.", "model_ema.", "first_stage_model."

# keys in such files besides the weights that are read: losses, conditioners, counters
_BESIDE = re.compile(
    r"(loss|cond_stage_model|perceptual_loss|lpips|discriminator|optimizers?|lr_schedulers?|callbacks)\."
    r"|(lvlb_weights|logvar|cond_ids|scale_factor|global_step|epoch)$"
    r"|ddim_\w+$"  # what samplers of CompVis register as buffers
)
_BESIDE_FIRST_STAGE = re.compile(r"(loss|model_ema|lpips|discriminator)\.|logvar$")
# the CompVis decoder upsamples, so it cannot serve as D; its codebook is left out, as in the reference
_BESIDE_COMPVIS = re.compile(r"decoder\.(conv_in|mid|up|norm_out|conv_out)\.|post_quant_conv\.|quantize\.|colorize$")


class Checkpoint(NamedTuple):
    """Holds the content of a file in our terms."""

    model: dict  # the `model` part of a configuration
    params: dict  # the weights of first_stage (encoder, decoder, liif) and unet, as far as the file has them
    scale_factor: float  # 1 / std of the latents
    prefix: str | None  # what the first stage's keys begin with: "" in a file of its own, None if there is none
    report: list[str]  # lines that say what was read from where


class Part(NamedTuple):
    """Describes one network in a file."""

    tree: str  # its name in our parameter tree, first_stage or unet
    title: str  # what reports call it
    entries: list[layout.Entry]  # its layers
    key: Callable[[str], str]  # name of a tensor in layout -> its key in the file


def load_torch(path: str | Path, arch: Mapping | str | Path, ema: bool = False, *, partial: bool = False) -> Model:
    """Loads a checkpoint of the reference implementation, or of the CompVis models that it builds on.

    A first stage alone gives a Model without a U-Net. Of a CompVis auto-encoder only the encoder is used, since its
    decoder upsamples; the Model then encodes, and denoises if the file holds a U-Net, but it does not render.

    Args:
      path: a PyTorch or .safetensors file that is a state dict or holds one, in any precision.
      arch: the mapping of its configuration, a YAML or JSON file with it, or a published experiment's name.
      ema: whether to read the averaged weights of the U-Net instead of the raw ones.
      partial: whether to accept a diffusion model's file without its U-Net or without its first stage.

    Returns:
      A Model in float32.

    Raises:
      UserError: if the file is unreadable, calls functions, holds no weights, or has a missing, unexpected or wrongly
        shaped key, which the message names.
    """
    found = read_checkpoint(path, arch, ema)
    if not partial and "first_stage" not in found.params:
        raise UserError(
            f"{path} holds no first stage: no key starts with {FIRST_STAGE} or encoder.; is it another model's file? "
            "(partial=True takes the U-Net alone.)"
        )
    if not partial and "unet" not in found.params and found.prefix:
        raise UserError(f"{path} holds no U-Net: no key starts with {UNET} (partial=True takes the first stage alone).")
    return Model(found.model, found.params, found.scale_factor, name=Path(path).stem)


def read_checkpoint(path: str | Path, arch: Mapping | str | Path, ema: bool = False) -> Checkpoint:
    """Reads those of our networks that a file holds; arguments and errors are those of `load_torch`."""
    arch, path = read_arch(arch), Path(path)
    model = model_config(arch)
    weights = read_weights(path, averaged=ema)
    state = weights.state
    check_schedule(state, model["schedule"], path)
    prefix, compvis = _find_first_stage(state)
    if prefix is not None and not compvis:
        model["first_stage"]["decoder_attention"] = _decoder_rule(model["first_stage"], state, prefix)
    parts = list(_parts(weights, model, ema, path, prefix, compvis))
    if not parts:
        raise UserError(
            f"{path} holds no first stage and no U-Net: no key starts with {FIRST_STAGE}, encoder. or {UNET}; is it "
            "another model's file?"
        )
    unused = _check_keys(parts, state, model, path, prefix, compvis)
    params, report = {}, []
    for part in parts:
        tree = convert(part, state)
        report.append(f"{part.title}: {_count(tree):,} parameters")
        params[part.tree] = {**params.get(part.tree, {}), **tree}
    scale_factor = _scale_factor(state, arch, path)
    origin = "the file" if "scale_factor" in state else "arch" if "scale_factor" in arch else "the default"
    report.append(f"scale_factor {scale_factor:.6g} from {origin}")
    for name, count in sorted(unused.items()):
        report.append(f"not used: {name} ({count} tensors)")
    return Checkpoint(model, params, scale_factor, prefix, report)


def _find_first_stage(state: Mapping) -> tuple[str | None, bool]:
    """Returns what the first stage's keys begin with (None if there are none), and whether the names are CompVis's."""
    prefix = FIRST_STAGE if any(key.startswith(FIRST_STAGE) for key in state) else ""
    names = [key[len(prefix) :] for key in state if key.startswith(prefix)]
    if any(name.startswith(("encoder.0.", "decoder.decoder.", "decoder.inr.")) for name in names):
        return prefix, False
    if any(name.startswith(("encoder.", "quant_conv.")) for name in names):
        return prefix, True
    return (prefix, False) if prefix else (None, False)


def _parts(weights: Weights, model, ema: bool, path: Path, prefix: str | None, compvis: bool) -> Iterator[Part]:
    state = weights.state
    if prefix is not None:
        entries = layout.compvis_encoder_entries(model) if compvis else layout.first_stage_entries(model)
        what = "encoder (CompVis) -> encoder of first_stage" if compvis else "first stage -> first_stage"
        yield Part("first_stage", f"{prefix or 'encoder.'}* {what}", list(entries), lambda name: prefix + name)
    entries = list(layout.unet_entries(model))
    has_unet = any(key.startswith(UNET) for key in state)
    if ema and any(key.startswith(EMA + "diffusion_model") for key in state):
        # LitEma removes the dots from the names of averaged weights
        yield Part("unet", f"{EMA}* averaged U-Net -> unet", entries, averaged_name)
    elif ema and not (weights.averaged and has_unet):
        raise UserError(f"{path} holds no averaged weights ({EMA}* or ema); load it with ema=False.")
    elif has_unet:
        kind = "averaged U-Net" if ema else "U-Net"
        yield Part("unet", f"{UNET}* {kind} -> unet", entries, lambda name: UNET + name)


def averaged_name(name: str) -> str:
    """Returns the key under which the reference stores the average of a U-Net's tensor."""
    return EMA + ("diffusion_model." + name).replace(".", "")


def _check_keys(parts, state, model, path, prefix, compvis) -> dict[str, int]:
    """Checks that every key is used and fits, or is known to be of no use, and returns the latter with their numbers.

    Raises:
      UserError: if a key is missing, of a wrong shape or type, or unexpected; the message names it.
    """
    wanted = {}
    for part in parts:
        shapes = expected_shapes(model, part.tree)
        for entry in part.entries:
            wanted |= {part.key(name): array.shape for name, array in layout.to_torch(entry, shapes).items()}
    ema = any(part.key("") == averaged_name("") for part in parts)
    unused, unexpected = {}, []
    for key in state:
        if key not in wanted:
            if name := _beside(key, prefix, compvis, ema):
                unused[name] = unused.get(name, 0) + 1
            else:
                unexpected.append(key)
    missing = [key for key in wanted if key not in state]
    if missing:
        more = f", {len(missing) - 1} more are missing" if len(missing) > 1 else ""
        more += f", {unexpected[0]} is unexpected" if unexpected else ""
        raise UserError(f"{path}: the key {missing[0]} is missing; does arch describe this file{more}?")
    for key, shape in wanted.items():
        if state[key].shape != shape:
            raise UserError(f"{path}: {key} {state[key].shape} does not fit arch, which needs {shape}.")
        if not is_floating(state[key].dtype):
            raise UserError(
                f"{path}: {key} holds values of the type {state[key].dtype}, and weights are floating-point numbers; "
                "get the file before it was quantised."
            )
    if unexpected:
        more = f" (with {len(unexpected) - 1} more)" if len(unexpected) > 1 else ""
        raise UserError(f"{path}: the key {unexpected[0]} is unexpected{more}; does arch describe this file?")
    return unused


def _beside(key: str, prefix: str | None, compvis: bool, ema: bool) -> str:
    """Returns what a key that is known to be of no use belongs to, or "" if the key is unexpected."""
    if key in BUFFERS:
        return "the schedule, which agrees with arch"
    if match := _BESIDE.match(key):
        return match[0]
    if key.startswith(UNET):
        return f"{UNET}*, the raw U-Net" if ema else ""
    if key.startswith(EMA) and (not ema or key in (EMA + "decay", EMA + "num_updates")):
        return f"{EMA}*"
    if prefix is not None and key.startswith(prefix):
        name = key[len(prefix) :]
        if match := _BESIDE_FIRST_STAGE.match(name) or (_BESIDE_COMPVIS.match(name) if compvis else None):
            return prefix + match[0].split(".")[0]
    return ""


def convert(part: Part, state: Mapping[str, np.ndarray]) -> dict:
    """Converts a part's tensors to our parameter tree, copying the arrays."""
    ours = {}
    for entry in part.entries:
        for leaf, array in layout.to_ours(entry, [state[part.key(name)] for name in layout.tensors(entry)]).items():
            ours[leaf] = np.array(array, np.float32, order="C")
    return traverse_util.unflatten_dict(ours)


def expected_shapes(model: Mapping, tree: str) -> dict[tuple[str, ...], np.ndarray]:
    """Returns arrays that take no memory and have the shapes of our parameters of `tree`, first_stage or unet.

    Raises:
      UserError: if such networks cannot be built.
    """
    try:
        flat: Any = traverse_util.flatten_dict(network_shapes(model, tree))
    except ValueError as e:
        raise UserError(f"arch describes networks that cannot be built: {e}") from e
    return {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in flat.items()}


def _scale_factor(state: Mapping, arch: Mapping, path: Path) -> float:
    found = np.asarray(state.get("scale_factor", arch.get("scale_factor", 1.0)), np.float64)
    if found.size != 1 or not np.isfinite(found).all() or not (found > 0).all():
        raise UserError(f"{path}: scale_factor must be one number > 0, got {found}.")
    return float(found.reshape(()))


def _decoder_rule(first_stage: Mapping, state: Mapping, prefix: str) -> str:
    """Returns which of the two placements of attention in D the file's keys show."""
    where = re.compile(re.escape(prefix) + r"decoder\.decoder\.1\.up\.(\d+)\.attn\.")
    levels = {int(match[1]) for key in state if (match := where.match(key))}
    doubled = models.attention_levels({**first_stage, "decoder_attention": "doubled"}, "decoder")
    constant = models.attention_levels({**first_stage, "decoder_attention": "constant"}, "decoder")
    return "doubled" if levels == set(doubled) != set(constant) else "constant"


def _count(tree) -> int:
    leaves: Any = traverse_util.flatten_dict(tree)
    return sum(x.size for x in leaves.values())
