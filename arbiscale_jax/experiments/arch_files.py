"""Reads descriptions of models (`arch`): a published experiment's name, a JSON file, or a YAML file of CompVis."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from arbiscale_jax.errors import UserError

from .published import published

MOST_BYTES = 2**20  # of a file; those of CompVis have two thousand
MOST_BRACKETS = 1000  # in a file: the time that PyYAML takes grows with the square of their depth
_UPSAMPLING = 4  # HR / LR training size of a super-resolution model whose file does not say it
_SCHEDULE = {"timesteps": 1000, "linear_start": 1e-4, "linear_end": 2e-2}  # CompVis's own defaults
_ADVICE = "give the model's own YAML file or a JSON file"


class _Loader(yaml.SafeLoader):
    """Reads YAML as CompVis's programs do (1e-4 is a number); aliases, which can grow without bound, are refused."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it repeats a part by an alias (*)")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_arch(arch: Mapping | str | Path) -> Mapping:
    """Returns an `arch` mapping.

    Args:
      arch: the mapping itself, the name of a published experiment, or a file: JSON with the mapping, or YAML as
        CompVis and the reference implementation write it (`from_compvis`).

    Raises:
      UserError: if there is no such experiment or file, or the file holds something else.
    """
    if isinstance(arch, Mapping):
        return arch
    known = published()
    if str(arch) in known:
        return known[str(arch)]
    path = Path(arch).expanduser()
    is_yaml = path.suffix.lower() in (".yaml", ".yml")
    kind = "YAML" if is_yaml else "JSON"
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        text = content.decode("utf-8-sig")
        if text.count("[") + text.count("{") > MOST_BRACKETS:
            raise ValueError(f"it has more than {MOST_BRACKETS} brackets")
        found = yaml.load(text, _Loader) if is_yaml else json.loads(text)  # a SafeLoader, which runs nothing
    except OSError as e:
        raise UserError(
            f"The architecture file {arch} cannot be read: {e.strerror}; give a YAML or JSON file, a mapping, or one "
            f"of the names {', '.join(known)}."
        ) from e
    except (ValueError, RecursionError, yaml.YAMLError) as e:
        why = " ".join(str(e).split()) or type(e).__name__
        raise UserError(f"The architecture file {arch} is not {kind}: {why}.") from e
    if not isinstance(found, dict):
        raise UserError(f"The architecture file {arch} holds no {kind} object.")
    return from_compvis(found, str(arch)) if is_compvis(found) else found


def is_compvis(found: Mapping) -> bool:
    """Tells whether a mapping has the form of CompVis's configurations: model, with a target and params."""
    return isinstance(found.get("model"), Mapping) and "params" in found["model"]


def from_compvis(found: Mapping, where: str) -> dict[str, Any]:
    """Translates a configuration of CompVis's latent-diffusion or of the reference implementation into an `arch`.

    What such a file does not say is taken from the published experiments: f_theta, which CompVis's models have not,
    and for an auto-encoder alone the U-Net and the schedule of ffhq.

    Args:
      found: the content of the file.
      where: what error messages call the file.

    Raises:
      UserError: if a part is missing or is no mapping.
    """
    params = _part(found["model"], "params", where, "model")
    is_diffusion = "unet_config" in params
    stage = params
    if is_diffusion:
        stage = _part(_part(params, "first_stage_config", where, "model.params"), "params", where, "first_stage_config")
    first_stage = dict(_part(stage, "ddconfig", where, "first_stage_config.params" if is_diffusion else "model.params"))
    if "embed_dim" in stage:
        first_stage["embed_dim"] = stage["embed_dim"]
    example = published()["ffhq"]
    liif = stage.get("liifconfig") or example["liif"]
    out: dict[str, Any] = {"first_stage": first_stage, "liif": liif}
    if not is_diffusion:
        z = first_stage.get("z_channels")
        unet = {**example["unet"], "in_channels": z, "out_channels": z}
        return {**example, **out, "unet": unet, "inp_size": first_stage.get("resolution")}
    unet = dict(_part(_part(params, "unet_config", where, "model.params"), "params", where, "unet_config"))
    out |= {"unet": unet, "conditional": _is_conditional(params, unet)}
    out |= {name: params.get(name, usual) for name, usual in _SCHEDULE.items()}
    out |= {"scale_factor": params["scale_factor"]} if "scale_factor" in params else {}
    out["inp_size"] = params.get("inp_size") or _training_size(params, first_stage)
    out["lr_size"] = _lr_size(found, out["inp_size"]) if out["conditional"] else None
    return out


def _part(mapping: Mapping, name: str, where: str, above: str) -> Mapping:
    value = mapping.get(name)
    if not isinstance(value, Mapping):
        raise UserError(f"{where} has no mapping {above}.{name}, which describes the model; {_ADVICE}.")
    return value


def _is_conditional(params: Mapping, unet: Mapping) -> bool:
    """Tells whether the U-Net sees an LR image beside the latent."""
    condition = params.get("cond_stage_config", "__is_unconditional__")
    return condition != "__is_unconditional__" and unet.get("in_channels") != unet.get("out_channels")


def _training_size(params: Mapping, first_stage: Mapping) -> Any:
    """Returns the side of the training images: that of the latents times f, or else the nominal resolution."""
    side, levels = params.get("image_size"), first_stage.get("ch_mult")
    if isinstance(side, int) and isinstance(levels, list) and levels:
        return side << (len(levels) - 1)
    return first_stage.get("resolution")


def _lr_size(found: Mapping, size: Any) -> Any:
    """Returns the side of the LR training images, which CompVis's files state beside the data."""
    data: Any = found
    for name in ("data", "params", "train", "params"):
        data = data.get(name) if isinstance(data, Mapping) else None
    data = data if isinstance(data, Mapping) else {}
    if "lr_size" in data or not isinstance(size, int):
        return data.get("lr_size")
    factor = data.get("downscale_f", _UPSAMPLING)
    return size // factor if isinstance(factor, int) and factor > 0 else None
