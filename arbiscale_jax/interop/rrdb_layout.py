"""Maps the published PyTorch weights of ESRGAN's generator to the parameters of `RRDBNet`.

There are three ways of naming the layers: the first release of ESRGAN, which numbers them in nested containers
(model.1.sub.0.RDB1.conv1.0); its second release (RRDB_trunk.0.RDB1.conv1); and BasicSR (body.0.rdb1.conv1), which
Real-ESRGAN uses too.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from arbiscale_jax.baselines.rrdb import DENSE_BLOCKS, DENSE_CONVS
from arbiscale_jax.errors import UserError

WRAPPERS = ("params_ema", "params")  # keys of BasicSR under which the weights lie, the averaged ones first


class Naming(NamedTuple):
    """Holds the names that one format gives to the layers; {n} stands for a block or for the number of blocks."""

    sign: str  # a pattern for the beginning of keys that only this format has
    dense: str  # a convolution of a dense block, with {n}, the dense block {d} and the convolution {c}
    first: str  # the first convolution
    trunk: str  # the convolution after the blocks
    ups: tuple[str, str]  # the convolutions after the two enlargements
    hr: str  # the convolution at full size
    last: str  # the convolution to RGB


FORMATS = (
    Naming(
        sign=r"model\.\d",
        dense="model.1.sub.{n}.RDB{d}.conv{c}.0",
        first="model.0",
        trunk="model.1.sub.{n}",
        ups=("model.3", "model.6"),
        hr="model.8",
        last="model.10",
    ),
    Naming(
        sign=r"RRDB_trunk\.|trunk_conv\.|upconv\d\.|HRconv\.",
        dense="RRDB_trunk.{n}.RDB{d}.conv{c}",
        first="conv_first",
        trunk="trunk_conv",
        ups=("upconv1", "upconv2"),
        hr="HRconv",
        last="conv_last",
    ),
    Naming(
        sign=r"body\.\d|conv_body\.|conv_up\d\.|conv_hr\.",
        dense="body.{n}.rdb{d}.conv{c}",
        first="conv_first",
        trunk="conv_body",
        ups=("conv_up1", "conv_up2"),
        hr="conv_hr",
        last="conv_last",
    ),
)


class Layer(NamedTuple):
    """Describes one convolution."""

    torch: str  # its name in the file, without .weight
    path: tuple[str, ...]  # its place in the parameters of `RRDBNet`
    inputs: int  # input channels
    outputs: int  # output channels


def load_rrdb(state: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """Converts the published weights of an RRDB network for x4, in any of the three formats.

    Args:
      state: arrays by name as PyTorch stores them, or a mapping that holds them under "params_ema" or "params". If it
        has both, the averaged weights, params_ema, are taken.

    Returns:
      The fields of `RRDBNet` (features, growth, blocks), as the shapes of the arrays tell them.
      Its parameters, in float32.

    Raises:
      UserError: if a key is missing, unknown or has another shape than expected; the message names it.
    """
    state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), state)
    naming = _naming(state)
    fields = _fields(state, naming)
    params: dict[str, Any] = {}
    used: set[str] = set()
    for layer in _layers(naming, **fields):
        place = params
        for part in layer.path:
            place = place.setdefault(part, {})
        shapes = {"weight": (layer.outputs, layer.inputs, 3, 3), "bias": (layer.outputs,)}
        weight, bias = (_array(state, f"{layer.torch}.{kind}", shape) for kind, shape in shapes.items())
        place["kernel"], place["bias"] = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), bias  # h w i o
        used.update(f"{layer.torch}.{kind}" for kind in shapes)
    if unknown := sorted(set(state) - used):
        raise UserError(
            f"The key {unknown[0]} is unknown: expected only the {len(used)} arrays of an RRDB network for x4 with "
            f"{fields['blocks']} blocks, found {len(unknown)} more."
        )
    return fields, params


def _naming(state: Mapping) -> Naming:
    for naming in FORMATS:
        if any(re.match(naming.sign, key) for key in state):
            return naming
    found = ", ".join(sorted(map(str, state))[:3]) or "no key"
    raise UserError(
        "The weights are not those of an RRDB network: expected keys like model.0.weight, trunk_conv.weight or "
        f"body.0.rdb1.conv1.weight, found {found}."
    )


def _fields(state: Mapping, naming: Naming) -> dict[str, int]:
    """Reads the sizes of the network from the names of its blocks and from the shapes of two kernels."""
    block = re.compile(re.escape(naming.dense.split("{n}")[0]) + r"(\d+)\.[Rr][Dd][Bb]")
    numbers = [int(found[1]) for found in map(block.match, state) if found]
    first, dense = f"{naming.first}.weight", f"{naming.dense.format(n=0, d=1, c=1)}.weight"
    features = _array(state, first, (None, 3, 3, 3)).shape[0]
    growth = _array(state, dense, (None, features, 3, 3)).shape[0]
    return {"features": features, "growth": growth, "blocks": max(numbers) + 1}


def _layers(naming: Naming, features: int, growth: int, blocks: int) -> Iterator[Layer]:
    """Lists the convolutions of a network."""
    yield Layer(naming.first, ("conv_first",), 3, features)
    for n in range(blocks):
        for d in range(1, DENSE_BLOCKS + 1):
            for c in range(1, DENSE_CONVS + 1):
                path = (f"block_{n}", f"dense_{d}", f"conv_{c}")
                width = growth if c < DENSE_CONVS else features
                yield Layer(naming.dense.format(n=n, d=d, c=c), path, features + (c - 1) * growth, width)
    yield Layer(naming.trunk.format(n=blocks), ("conv_trunk",), features, features)
    for i, name in enumerate(naming.ups, 1):
        yield Layer(name, (f"conv_up_{i}",), features, features)
    yield Layer(naming.hr, ("conv_hr",), features, features)
    yield Layer(naming.last, ("conv_last",), features, 3)


def _array(state: Mapping, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Returns an array in float32 after comparing its shape, in which None stands for any size above 0."""
    text = f"[{' '.join('n' if n is None else str(n) for n in shape)}]"
    if key not in state:
        raise UserError(f"The key {key} is missing: expected an array {text} of an RRDB network for x4, found none.")
    array = np.asarray(state[key])
    if array.ndim != len(shape) or any(n == 0 or m not in (None, n) for n, m in zip(array.shape, shape, strict=True)):
        found = f"[{' '.join(map(str, array.shape))}]"
        raise UserError(f"The key {key} has another shape than an RRDB network for x4: expected {text}, found {found}.")
    return np.array(array, np.float32)
