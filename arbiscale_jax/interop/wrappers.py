"""Finds the weights inside what training programs wrap around them, and gives them their plain names."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from arbiscale_jax.errors import UserError

# keys under which programs store a state dict, such as Lightning, timm, DeepSpeed and BasicSR, and those of an average
_INNER = ("state_dict", "model_state_dict", "model", "module", "sd", "params", "network", "net", "weights", "generator")
_AVERAGED = ("ema", "params_ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict")
_DEEPEST = 4  # wrappers inside each other that are looked through
# parts of names that torch.compile, DistributedDataParallel, FSDP, checkpointing and Lightning add
_ADDED = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_ADDED_UNDOTTED = re.compile(rf"(model_ema\.diffusion_model)(?:{'|'.join(_ADDED)})+")  # LitEma removes the dots


def find_weights(found: Mapping, is_tensor: Callable[[Any], bool]) -> tuple[Mapping, Mapping]:
    """Looks for state dicts inside a file's content.

    Args:
      found: the content.
      is_tensor: tells whether a value is a tensor.

    Returns:
      The mapping of the weights, which is `found` itself if nothing is wrapped around them; and that of their average,
      which is empty if the file holds none beside them.
    """
    own, averaged = _inside(found, _INNER, is_tensor), _inside(found, _AVERAGED, is_tensor)
    if own is None:
        own = averaged if averaged and not any(map(is_tensor, found.values())) else found
    return own, averaged or {}


def _inside(found: Mapping, names: Iterable[str], is_tensor: Callable[[Any], bool]) -> Mapping | None:
    """Returns the mapping of tensors under one of the names, looking through further wrappers, or None."""
    for depth in range(_DEEPEST):
        inner = (found.get(name) for name in (names if depth == 0 else (*_INNER, *_AVERAGED)))
        one = next((x for x in inner if isinstance(x, Mapping) and _holds(x, is_tensor, _DEEPEST)), None)
        if one is None:
            return found if depth else None
        found = one
    return found


def _holds(found: Mapping, is_tensor: Callable[[Any], bool], depth: int) -> bool:
    inner = (x for x in found.values() if isinstance(x, Mapping)) if depth else ()
    return any(map(is_tensor, found.values())) or any(_holds(x, is_tensor, depth - 1) for x in inner)


def plain_names(state: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Returns the tensors by their names without the parts that wrappers add, such as module. and _orig_mod.

    Args:
      state: the tensors.
      where: what error messages call the file.

    Raises:
      UserError: if two different tensors have the same name then.
    """
    out = {}
    for key, value in state.items():
        name = ".".join(part for part in key.split(".") if part not in _ADDED) or key
        name = _ADDED_UNDOTTED.sub(r"\1", name)
        if name in out and not np.array_equal(out[name], value):
            raise UserError(f"{where} holds {name} twice, once as {key}, with other values; delete one of them.")
        out[name] = value
    return out
