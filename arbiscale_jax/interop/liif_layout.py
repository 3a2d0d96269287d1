"""Reads the weights of LIIF's published checkpoints (Chen et al. 2021) into the parameter trees of this package.

Such a .pth file holds {"model": {"name", "args", "sd"}}; interop.checkpoint_files.read_state_dict reads the state dict
`sd` from it without running any code. Each network is a list of layers (interop.layout.Entry), from which
`read_entries` checks and converts a state dict; networks of other methods can be read in the same way.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from arbiscale_jax.baselines import LiifSR
from arbiscale_jax.errors import UserError
from arbiscale_jax.interop import layout
from arbiscale_jax.interop.checkpoint_files import is_floating
from arbiscale_jax.interop.layout import Entry

# EDSR's mean shift, which lies in LIIF's files though LIIF does not apply it
MEAN_SHIFT = frozenset(f"encoder.{i}_mean.{x}" for i in ("sub", "add") for x in ("weight", "bias"))

# the number of a block, of a convolution in a block of RDN, and of a layer of the MLP
_BLOCK = r"encoder\.(?:body(?=\.\d+\.body)|RDBs)\.(\d+)\."
_RDN_CONV, _LAYER = r"encoder\.RDBs\.\d+\.convs\.(\d+)\.", r"imnet\.layers\.(\d+)\."

_CONV, _MATRIX = ("channels", "inputs", "rows", "columns"), ("channels", "inputs")  # axes of a weight in PyTorch


def edsr_entries(blocks: int, torch: str = "encoder.", path: tuple[str, ...] = ("encoder",)) -> Iterator[Entry]:
    """Lists the layers of an EDSR encoder.

    Args:
      blocks: number of residual blocks.
      torch: what the keys of the state dict begin with.
      path: place of the encoder in our parameter tree.

    Yields:
      The layers, in the order in which they are applied.
    """
    yield Entry(f"{torch}head.0", (*path, "conv_in"), "conv")
    for i in range(blocks):
        yield Entry(f"{torch}body.{i}.body.0", (*path, f"block_{i}", "conv1"), "conv")
        yield Entry(f"{torch}body.{i}.body.2", (*path, f"block_{i}", "conv2"), "conv")
    yield Entry(f"{torch}body.{blocks}", (*path, "conv_out"), "conv")


def rdn_entries(
    blocks: int, convs: int, torch: str = "encoder.", path: tuple[str, ...] = ("encoder",)
) -> Iterator[Entry]:
    """Lists the layers of an RDN encoder with `convs` convolutions in each block; see `edsr_entries` for the rest."""
    for i in range(2):
        yield Entry(f"{torch}SFENet{i + 1}", (*path, f"conv_in_{i}"), "conv")
    for i in range(blocks):
        for j in range(convs):
            yield Entry(f"{torch}RDBs.{i}.convs.{j}.conv.0", (*path, f"block_{i}", f"conv_{j}"), "conv")
        yield Entry(f"{torch}RDBs.{i}.LFF", (*path, f"block_{i}", "fuse"), "conv")
    yield Entry(f"{torch}GFF.0", (*path, "fuse"), "conv")
    yield Entry(f"{torch}GFF.1", (*path, "conv_out"), "conv")


def mlp_entries(layers: int, torch: str = "imnet.layers.") -> Iterator[Entry]:
    """Lists the layers of LIIF's MLP, between which PyTorch numbers the ReLUs too, for a parameter tree `liif`."""
    for i in range(layers):
        yield Entry(f"{torch}{2 * i}", ("liif", str(i)), "liif")


def parameter_shapes(module: nn.Module, *args) -> dict[tuple[str, ...], np.ndarray]:
    """Returns arrays that take no memory and have the shapes of a module's parameters, by their places in the tree.

    Args:
      module: the module.
      *args: what its init takes after the key; nothing is computed.
    """
    params = jax.eval_shape(lambda key: module.init(key, *args), jax.random.key(0))["params"]
    flat: Any = traverse_util.flatten_dict(params)
    return {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in flat.items()}


def read_entries(
    entries: Iterable[Entry],
    shapes: Mapping[tuple[str, ...], np.ndarray],
    state: Mapping[str, np.ndarray],
    what: str,
    unused: Collection[str] = (),
) -> dict:
    """Checks a state dict against the layers of a network and converts it.

    Args:
      entries: the layers, which together have each parameter of the network once.
      shapes: the shapes of our parameters, see `parameter_shapes`.
      state: the tensors by key; others than those of `entries` and `unused` are an error.
      what: what error messages call the file or the state dict.
      unused: keys that may be there and are not read.

    Returns:
      Our parameters, float32 copies.

    Raises:
      UserError: if a key is missing, has another shape, does not hold floating-point numbers, or is unknown; the
        message names the key, what was expected and what was found.
    """
    entries = list(entries)
    assert {leaf for entry in entries for leaf in layout.leaves(entry)} == set(shapes), "entries and module disagree"
    wanted = {name: x.shape for entry in entries for name, x in layout.to_torch(entry, shapes).items()}
    unknown = next((key for key in state if key not in wanted and key not in unused), None)
    for key, shape in wanted.items():
        if key not in state:
            raise _missing(key, shape, what, f"no such key{f', but the unknown key {unknown}' if unknown else ''}")
        if state[key].shape != shape:
            raise UserError(f"{what}: {key} has another shape, expected {shape}, found {state[key].shape}.")
        if not is_floating(state[key].dtype):
            raise UserError(f"{what}: {key} has another type, expected floating-point, found {state[key].dtype}.")
    if unknown is not None:
        raise UserError(
            f"{what}: {unknown} is unknown, expected only the {len(wanted)} keys from {entries[0].torch}.weight to "
            f"{entries[-1].torch}.bias, found it with the shape {state[unknown].shape}."
        )
    ours = {}
    for entry in entries:
        for leaf, array in layout.to_ours(entry, [state[name] for name in layout.tensors(entry)]).items():
            ours[leaf] = np.array(array, np.float32, order="C")
    return traverse_util.unflatten_dict(ours)


def load_liif(state: Mapping[str, np.ndarray], what: str = "The checkpoint of LIIF") -> tuple[dict[str, Any], dict]:
    """Reads a state dict of LIIF with feature unfolding and cell decoding, whose encoder is EDSR or RDN without a tail.

    The sizes of the networks come from the shapes. EDSR's unused mean shift is skipped.

    Args:
      state: the tensors by key, in any floating-point type.
      what: what error messages call the file or the state dict.

    Returns:
      The fields of `LiifSR`, and its parameters {"encoder", "liif"} as float32 arrays for {"params": ...}.

    Raises:
      UserError: if a key is missing, has another shape, does not hold floating-point numbers, or is unknown; the
        message names the key, what was expected and what was found.
    """
    blocks = _count(state, _BLOCK)
    unused: Collection[str] = ()
    if any(key.startswith(("encoder.SFENet", "encoder.RDBs.", "encoder.GFF.")) for key in state):
        channels, convs = _size(state, "encoder.SFENet1.weight", _CONV, what), _count(state, _RDN_CONV)
        growth = _size(state, "encoder.RDBs.0.convs.0.conv.0.weight", _CONV, what)
        fields: dict[str, Any] = {"encoder_name": "rdn", "channels": channels, "blocks": blocks}
        fields |= {"convs": convs, "growth": growth}
        encoder = rdn_entries(blocks, convs)
    elif any(key.startswith(("encoder.head.", "encoder.body.")) for key in state):
        channels = _size(state, "encoder.head.0.weight", _CONV, what)
        fields = {"encoder_name": "edsr", "channels": channels, "blocks": blocks}
        encoder, unused = edsr_entries(blocks), MEAN_SHIFT
    else:
        some = f"{len(state)} other keys such as {next(iter(state))}" if state else "no keys at all"
        raise UserError(
            f"{what}: there is no encoder, expected encoder.head.0.weight (EDSR) or encoder.SFENet1.weight (RDN), "
            f"found {some}."
        )
    layers = _count(state, _LAYER, least=2)
    widths = [_size(state, f"imnet.layers.{2 * i}.weight", _MATRIX, what) for i in range(layers)]
    fields["hidden"] = tuple(widths[:-1])
    shapes = parameter_shapes(LiifSR(**fields), jnp.zeros((1, 1, 1, 3)), (1, 1))
    return fields, read_entries([*encoder, *mlp_entries(layers)], shapes, state, what, unused)


def _count(state: Mapping, pattern: str, least: int = 1) -> int:
    """Counts the different numbers that a pattern finds in the keys; at least `least`, so that a missing key is named.

    A count and not the largest number, so that a wrong name cannot ask for a network of any size.
    """
    return max(least, len({match[1] for key in state if (match := re.match(pattern, key))}))


def _size(state: Mapping[str, np.ndarray], key: str, axes: tuple[str, ...], what: str) -> int:
    """Returns the output channels of a weight.

    Raises:
      UserError: if it is missing, has no channels, or another number of axes.
    """
    wanted = f"({', '.join(axes)})"
    if key not in state:
        raise _missing(key, wanted, what, f"{len(state)} other keys")
    shape = state[key].shape
    if len(shape) != len(axes) or not shape[0]:
        raise UserError(f"{what}: {key} has another shape, expected {wanted}, found {shape}.")
    return shape[0]


def _missing(key: str, expected, what: str, found: str) -> UserError:
    return UserError(f"{what}: {key} is missing, expected a tensor of the shape {expected}, found {found}.")
