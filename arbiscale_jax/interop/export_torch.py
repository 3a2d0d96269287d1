"""Writes a Model as a state dict of the reference implementation."""

from pathlib import Path

import numpy as np
from flax import traverse_util

from arbiscale_jax.errors import UserError
from arbiscale_jax.inference import Model

from . import layout
from .checkpoint_files import check_output_file, write_state_dict
from .ldm_schedule import schedule_buffers
from .torch_checkpoint import EMA, FIRST_STAGE, UNET, averaged_name


def state_dict(model: Model) -> dict[str, np.ndarray]:
    """Returns a Model's weights with the names and shapes of the reference implementation.

    A model with a U-Net gives a whole diffusion model: the buffers of its noise schedule, its raw and its averaged
    weights (which are the same here; the reference samples with the latter), scale_factor, and the first stage. A first
    stage alone has the names that the reference uses in a first stage's own file.

    Args:
      model: the model.

    Returns:
      A dict from name to array.

    Raises:
      UserError: if the reference implementation has no such network.
    """
    flat = {path: np.asarray(value) for path, value in traverse_util.flatten_dict(model.params).items()}
    config, unet, first_stage = model.config, _under(flat, "unet"), _under(flat, "first_stage")
    for name, part in (("unet", unet), ("first_stage", first_stage)):
        if part and config[name]["num_groups"] != 32:
            raise UserError(
                f"The reference's GroupNorm has 32 groups and this model's {name} {config[name]['num_groups']}, so "
                "its networks cannot hold these weights."
            )
    state = {}
    if unet:
        tensors = _tensors(layout.unet_entries(config), unet)
        state |= schedule_buffers(config["schedule"])
        state |= {UNET + name: value for name, value in tensors.items()}
        state |= {EMA + "decay": np.float32(0.9999), EMA + "num_updates": np.int32(0)}
        state |= {averaged_name(name): value for name, value in tensors.items()}
        state["scale_factor"] = np.float32(model.scale_factor)
    networks = {
        "encoder": layout.encoder_entries(config["first_stage"]),
        "decoder": layout.decoder_entries(config["first_stage"]),
        "liif": layout.liif_entries(config["liif"]),
    }
    prefix = FIRST_STAGE if unet else ""
    for name, entries in networks.items():
        if any(path[0] == name for path in first_stage):
            state |= {prefix + key: value for key, value in _tensors(entries, first_stage).items()}
    return state


def _under(flat: dict, part: str) -> dict:
    return {path[1:]: value for path, value in flat.items() if path[0] == part}


def _tensors(entries, flat: dict) -> dict[str, np.ndarray]:
    return {name: value for entry in entries for name, value in layout.to_torch(entry, flat).items()}


def save_torch(model: Model, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes `state_dict(model)` to a file.

    Args:
      model: the model.
      path: a .ckpt file (with the key state_dict, as in Lightning), or a .pt, .pth or .safetensors file.
      overwrite: whether to replace a file that is there already.

    Returns:
      The path.

    Raises:
      UserError: if the suffix is another one, the reference has no such network, the file cannot be written, or it
        exists and `overwrite` is False.
    """
    path = Path(path)
    check_output_file(path, overwrite)
    write_state_dict(path, state_dict(model))
    return path
