"""Lists how the reference implementation names its weights, layer by layer, beside the places in our parameter tree.

Each part of the model is a list of `Entry`. Reading and writing both use it, so each layout is written down once.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from arbiscale_jax import models


class Entry(NamedTuple):
    """Describes one layer."""

    torch: str  # its name in the reference, without .weight
    path: tuple[str, ...]  # its place in our parameter tree
    kind: str  # how the arrays correspond, one of KINDS


# the shape of a weight in the reference (o output, i input channels); ours are [h w i o] in convolutions, else [i o]
KINDS = {
    "norm": "o",
    "linear": "o i",
    "conv1d": "o i 1",
    "pointwise": "o i 1 1",  # a 1x1 convolution, which is a dense layer in ours
    "qkv": "o i 1 1",  # three 1x1 convolutions, which are one dense layer in ours
    "conv": "o i h w",
    "liif": "o i",  # a linear layer, whose parameters have no module of their own in ours
}


def autoencoder_res(torch: str, path: tuple, changes: bool) -> Iterator[Entry]:
    """Lists the layers of a residual block of the auto-encoder, with a shortcut if the number of channels changes."""
    for i in "12":
        yield Entry(f"{torch}.norm{i}", (*path, f"norm{i}"), "norm")
        yield Entry(f"{torch}.conv{i}", (*path, f"conv{i}"), "conv")
    if changes:
        yield Entry(f"{torch}.nin_shortcut", (*path, "shortcut"), "conv")


def autoencoder_attention(torch: str, path: tuple) -> Iterator[Entry]:
    """Lists the layers of self-attention in the auto-encoder."""
    yield Entry(f"{torch}.norm", (*path, "norm"), "norm")
    yield Entry(torch, (*path, "qkv"), "qkv")
    yield Entry(f"{torch}.proj_out", (*path, "proj_out"), "pointwise")


def _middle(torch: str, path: tuple, attention: bool) -> Iterator[Entry]:
    for i in "12":
        yield from autoencoder_res(f"{torch}.mid.block_{i}", (*path, f"mid_block_{i}"), False)
    if attention:
        yield from autoencoder_attention(f"{torch}.mid.attn_1", (*path, "mid_attn"))


def encoder_entries(cfg: Mapping, torch: str = "encoder.0", quant: str = "encoder.1") -> Iterator[Entry]:
    """Lists the layers of E; `cfg` is model.first_stage."""
    path, levels = ("encoder",), models.attention_levels(cfg, "encoder")
    yield Entry(f"{torch}.conv_in", (*path, "conv_in"), "conv")
    width = 1
    for level, mult in enumerate(cfg["ch_mult"]):
        for block in range(cfg["num_res_blocks"]):
            yield from autoencoder_res(
                f"{torch}.down.{level}.block.{block}", (*path, f"down_{level}_block_{block}"), mult != width
            )
            width = mult
            if level in levels:
                yield from autoencoder_attention(
                    f"{torch}.down.{level}.attn.{block}", (*path, f"down_{level}_attn_{block}")
                )
        if level < len(cfg["ch_mult"]) - 1:
            yield Entry(f"{torch}.down.{level}.downsample.conv", (*path, f"down_{level}_downsample"), "conv")
    yield from _middle(torch, path, cfg["mid_attention"])
    yield Entry(f"{torch}.norm_out", (*path, "norm_out"), "norm")
    yield Entry(f"{torch}.conv_out", (*path, "conv_out"), "conv")
    yield Entry(quant, (*path, "quant_conv"), "conv")


def decoder_entries(
    cfg: Mapping, torch: str = "decoder.decoder.1", quant: str = "decoder.decoder.0"
) -> Iterator[Entry]:
    """Lists the layers of D; `cfg` is model.first_stage."""
    path, levels = ("decoder",), models.attention_levels(cfg, "decoder")
    yield Entry(quant, (*path, "post_quant_conv"), "conv")
    yield Entry(f"{torch}.conv_in", (*path, "conv_in"), "conv")
    yield from _middle(torch, path, cfg["mid_attention"])
    width = cfg["ch_mult"][-1]
    for level in reversed(range(len(cfg["ch_mult"]))):
        for block in range(cfg["num_res_blocks"] + 1):
            mult = cfg["ch_mult"][level]
            yield from autoencoder_res(
                f"{torch}.up.{level}.block.{block}", (*path, f"up_{level}_block_{block}"), mult != width
            )
            width = mult
            if level in levels:
                yield from autoencoder_attention(
                    f"{torch}.up.{level}.attn.{block}", (*path, f"up_{level}_attn_{block}")
                )


def liif_entries(cfg: Mapping) -> Iterator[Entry]:
    """Lists the layers of f_theta, between which the reference numbers the ReLUs too; `cfg` is model.liif."""
    for i in range(len(cfg["hidden"]) + 1):
        yield Entry(f"decoder.inr.imnet.layers.{2 * i}", ("liif", str(i)), "liif")


def first_stage_entries(model: Mapping) -> Iterator[Entry]:
    """Lists the layers of E, D and f_theta in the order of the reference's first stage."""
    yield from encoder_entries(model["first_stage"])
    yield from decoder_entries(model["first_stage"])
    yield from liif_entries(model["liif"])


def compvis_encoder_entries(model: Mapping) -> Iterator[Entry]:
    """Lists the layers of E with the names of the CompVis auto-encoders (AutoencoderKL, VQModelInterface)."""
    return encoder_entries(model["first_stage"], torch="encoder", quant="quant_conv")


def _unet_res(torch: str, path: str, changes: bool) -> Iterator[Entry]:
    names = [
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "emb"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
    ]
    for there, here in names:
        kind = {"n": "norm", "c": "conv", "e": "linear"}[here[0]]
        yield Entry(f"{torch}.{there}", (path, here), kind)
    if changes:
        yield Entry(f"{torch}.skip_connection", (path, "shortcut"), "conv")


def _unet_attention(torch: str, path: str) -> Iterator[Entry]:
    yield Entry(f"{torch}.norm", (path, "norm"), "norm")
    yield Entry(f"{torch}.qkv", (path, "qkv"), "conv1d")
    yield Entry(f"{torch}.proj_out", (path, "proj_out"), "conv1d")


def unet_entries(model: Mapping) -> Iterator[Entry]:
    """Lists the layers of eps_theta, below `model.diffusion_model.`.

    The reference numbers their blocks, and our parameter tree names them by level.
    """
    cfg, unet = model["unet"], models.build_unet(model)
    mults, last = tuple(cfg["channel_mult"]), len(cfg["channel_mult"]) - 1
    yield Entry("time_embed.0", ("time_embed_0",), "linear")
    yield Entry("time_embed.2", ("time_embed_1",), "linear")
    yield Entry("input_blocks.0.0", ("conv_in",), "conv")
    number, width, skips = 1, 1, [1]
    for level, mult in enumerate(mults):
        attends = 2**level in cfg["attention_rates"]
        for block in range(unet.blocks_of(level)):
            yield from _unet_res(f"input_blocks.{number}.0", f"down_{level}_block_{block}", mult != width)
            width = mult
            if attends:
                yield from _unet_attention(f"input_blocks.{number}.1", f"down_{level}_attn_{block}")
            number += 1
            skips.append(width)
        if level < last:
            if cfg["resblock_updown"]:
                yield from _unet_res(f"input_blocks.{number}.0", f"down_{level}_downsample", False)
            else:
                yield Entry(f"input_blocks.{number}.0.op", (f"down_{level}_downsample",), "conv")
            number += 1
            skips.append(width)
    yield from _unet_res("middle_block.0", "mid_block_1", False)
    yield from _unet_attention("middle_block.1", "mid_attn")
    yield from _unet_res("middle_block.2", "mid_block_2", False)
    number = 0
    for level in reversed(range(last + 1)):
        attends = 2**level in cfg["attention_rates"]
        for block in range(unet.blocks_of(level) + 1):
            yield from _unet_res(
                f"output_blocks.{number}.0", f"up_{level}_block_{block}", width + skips.pop() != mults[level]
            )
            width = mults[level]
            if attends:
                yield from _unet_attention(f"output_blocks.{number}.1", f"up_{level}_attn_{block}")
            if level > 0 and block == unet.blocks_of(level):
                torch = f"output_blocks.{number}.{1 + attends}"
                if cfg["resblock_updown"]:
                    yield from _unet_res(torch, f"up_{level}_upsample", False)
                else:
                    yield Entry(f"{torch}.conv", (f"up_{level}_upsample",), "conv")
            number += 1
    yield Entry("out.0", ("norm_out",), "norm")
    yield Entry("out.2", ("conv_out",), "conv")


def tensors(entry: Entry) -> list[str]:
    """Returns the names of the tensors of a layer, in the order in which `to_ours` takes them."""
    layers = [f"{entry.torch}.{x}" for x in "qkv"] if entry.kind == "qkv" else [entry.torch]
    return [f"{layer}.{x}" for x in ("weight", "bias") for layer in layers]


def leaves(entry: Entry) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the places of the layer's weight and bias in our parameter tree."""
    if entry.kind == "liif":
        path, i = entry.path
        return (path, f"kernel_{i}"), (path, f"bias_{i}")
    return (*entry.path, "scale" if entry.kind == "norm" else "kernel"), (*entry.path, "bias")


def to_ours(entry: Entry, arrays: list[np.ndarray]) -> dict[tuple[str, ...], np.ndarray]:
    """Converts the layer's tensors, in the order of `tensors`, to our parameters, {path: array}."""
    half = len(arrays) // 2
    weight, bias = np.concatenate(arrays[:half]), np.concatenate(arrays[half:])
    if entry.kind == "conv":
        weight = weight.transpose(2, 3, 1, 0)  # o i h w -> h w i o
    elif entry.kind != "norm":
        weight = weight.reshape(weight.shape[:2]).T  # o i (1 (1)) -> i o
    return dict(zip(leaves(entry), (weight, bias), strict=True))


def to_torch(entry: Entry, flat: Mapping[tuple[str, ...], np.ndarray]) -> dict[str, np.ndarray]:
    """Converts our parameters, {path: array}, to the layer's tensors, {name: array} (views); it undoes `to_ours`."""
    weight, bias = (flat[path] for path in leaves(entry))
    if entry.kind == "conv":
        weight = weight.transpose(3, 2, 0, 1)
    elif entry.kind != "norm":
        weight = weight.T
        weight = weight[(..., *[None] * (len(KINDS[entry.kind].split()) - 2))]
    parts = 3 if entry.kind == "qkv" else 1
    return dict(zip(tensors(entry), [*np.split(weight, parts), *np.split(bias, parts)], strict=True))
