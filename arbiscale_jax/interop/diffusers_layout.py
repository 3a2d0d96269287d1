"""Reads the published state dicts of SR3 and IDM: names of their tensors beside the places in our parameter trees.

A state dict maps names to arrays. That of SR3 is what the public PyTorch implementation saves (`*_gen.pth` of
Janspiry/Image-Super-Resolution-via-Iterative-Refinement), and that of IDM what the authors' code does (Ree1s/IDM).
Sizes of the networks are inferred from the shapes. The number of groups of the norms cannot be, so it is an argument.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from arbiscale_jax.baselines.idm_unet import IDM
from arbiscale_jax.baselines.sr3_unet import SR3UNet
from arbiscale_jax.errors import UserError
from arbiscale_jax.interop.checkpoint_files import is_floating
from arbiscale_jax.interop.liif_layout import edsr_entries

PREFIX = "denoise_fn."  # what the names of the U-Net's tensors begin with
SR3_TITLE = "SR3's state dict"
IDM_TITLE = "IDM's state dict"

# buffers of the noise schedule
_BUFFERS = re.compile(
    r"(betas|(sqrt_|sqrt_one_minus_|log_one_minus_|sqrt_recip_|sqrt_recipm1_)?alphas_cumprod|alphas_cumprod_prev"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|ddim_c1)$"
)

# layers of the way down after the first convolution, with their kinds
_DOWN = re.compile(re.escape(PREFIX) + r"downs\.(\d+)\.(res_block|conv)\.")

Pair = tuple[str, tuple[str, ...]]  # the name of a tensor, its place in our parameter tree


def load_sr3(state: Mapping[str, np.ndarray], *, num_groups: int = 32) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts a state dict of the public implementation of SR3.

    Args:
      state: arrays by name; the buffers of its noise schedule are ignored.
      num_groups: groups of the norms, `norm_groups` in its configuration files: 32 for 16 -> 128, 16 for 64 -> 512.

    Returns:
      The fields of `SR3UNet` that are known (all but dropout) and its parameters, float32.

    Raises:
      UserError: if a tensor is missing, unknown, of another shape or not floating-point; it names the key, what was
        expected and what was found.
    """
    fields = _unet_fields(state, num_groups, SR3_TITLE)
    side = 2 ** (len(fields["channel_mult"]) - 1)
    image = (1, side, side, 3)
    shapes = parameter_shapes(SR3UNet(**fields), image, (1,), image)
    return fields, _convert(state, dict(_unet_pairs(fields, (), implicit=False)), shapes, _BUFFERS, SR3_TITLE)


def load_idm(state: Mapping[str, np.ndarray], *, num_groups: int = 32) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts a state dict of the authors' implementation of IDM.

    Args:
      state: arrays by name. The buffers of its noise schedule are ignored, and so are the parameters that its forward
        pass never uses.
      num_groups: groups of the norms, `norm_groups` in its configuration files.

    Returns:
      The fields of `IDM` that are known (all but dropout) and its parameters, float32.

    Raises:
      UserError: if a tensor is missing, unknown, of another shape or not floating-point; it names the key, what was
        expected and what was found.
    """
    fields = _unet_fields(state, num_groups, IDM_TITLE)
    first = f"{PREFIX}ups.{fields['num_res_blocks'] + 1}.imnet.0.weight"
    fields["implicit_width"] = _shape(state, first, IDM_TITLE, 2)[0] if len(fields["channel_mult"]) > 1 else 256
    fields["encoder_channels"] = _shape(state, "encoder.head.0.weight", IDM_TITLE, 4)[0]
    blocks = 0
    while f"encoder.body.{blocks}.body.0.weight" in state:
        blocks += 1
    fields["encoder_blocks"] = blocks
    side = 2 ** (len(fields["channel_mult"]) - 1)
    shapes = parameter_shapes(IDM(**fields), (1, side, side, 3), (1,), (1, 1, 1, 3), (1,))
    pairs = dict(_unet_pairs(fields, ("unet",), implicit=True))
    pairs |= dict(_encoder_pairs(blocks)) | dict(_guidance_pairs(len(fields["channel_mult"])))
    return fields, _convert(state, pairs, shapes, idm_unused(len(fields["channel_mult"]) - 1), IDM_TITLE)


def idm_unused(last: int) -> re.Pattern:
    """Returns what matches the names of IDM's tensors that are not used; `last` is the number of the coarsest level."""
    unet = re.escape(PREFIX)
    return re.compile(
        f"{_BUFFERS.pattern}"
        r"|imnet\.layers\.\d+\.(weight|bias)$|encoder\.(sub|add)_mean\.(weight|bias)$"
        rf"|{unet}(final_down[12]|final_linear|final_styleconv)\."
        rf"|{unet}ups\.\d+\.style\.(weight$|modulated_conv\.)"
        # the coarsest level is not halved again, and the finest one has no coordinate MLP to guide
        rf"|{unet}conv_body_down\.{last}\.|{unet}condition_(scale1|scale2|shift)\.0\."
    )


def _shape(state: Mapping[str, np.ndarray], key: str, title: str, ndim: int) -> tuple[int, ...]:
    """Returns the shape of a tensor, which must have `ndim` axes and no empty one."""
    if key not in state:
        raise UserError(f"{title} lacks {key}: expected an array with {ndim} axes, found none.")
    shape = tuple(state[key].shape)
    if len(shape) != ndim or 0 in shape:
        raise UserError(
            f"{key} in {title} does not fit: expected an array with {ndim} axes and no empty one, found shape {shape}."
        )
    return shape


def _unet_fields(state: Mapping[str, np.ndarray], num_groups: int, title: str) -> dict[str, Any]:
    """Infers the fields that SR3UNet and IDM share."""
    first = f"{PREFIX}downs.0.weight"
    channels = _shape(state, first, title, 4)[0]
    if num_groups < 1 or channels % num_groups:  # the channels of all norms are multiples of this number
        raise UserError(
            f"{first} in {title} does not fit: expected a multiple of num_groups={num_groups} output channels, "
            f"found {channels}."
        )
    mults, blocks, attention = [0], [0], []  # of the levels so far, and the levels with attention
    layers = {match[1]: match[2] for key in state if (match := _DOWN.match(key))}
    for number in range(1, len(layers) + 1):
        if layers.get(str(number)) == "conv":  # from one level to the next
            mults.append(0)
            blocks.append(0)
            continue
        block = f"{PREFIX}downs.{number}.res_block.block1.block.3.weight"
        width = _shape(state, block, title, 4)[0]
        if width % channels:
            raise UserError(
                f"{block} in {title} does not fit: expected a multiple of {channels} output channels, found {width}."
            )
        mults[-1] = width // channels
        blocks[-1] += 1
        if f"{PREFIX}downs.{number}.attn.qkv.weight" in state and len(mults) - 1 not in attention:
            attention.append(len(mults) - 1)
    return {
        "out_channels": _shape(state, f"{PREFIX}final_conv.block.3.weight", title, 4)[0],
        "channels": channels,
        "channel_mult": tuple(mults),
        "num_res_blocks": blocks[0],
        "attention_levels": tuple(attention),
        "num_groups": num_groups,
    }


def parameter_shapes(module: nn.Module, *inputs: tuple[int, ...]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Returns the shapes of a module's parameters by their places in the tree; nothing is computed.

    Args:
      module: the module.
      *inputs: shapes of the float32 arrays that it is called with.
    """
    arrays = [jax.ShapeDtypeStruct(shape, np.float32) for shape in inputs]
    flat: Any = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), *arrays)["params"])
    return {path: leaf.shape for path, leaf in flat.items()}


def _convert(state, pairs: Mapping[str, tuple], shapes: Mapping, beside: re.Pattern, title: str) -> dict[str, Any]:
    """Converts the tensors of `pairs` and checks that the state dict holds these and what matches `beside` alone."""
    assert set(pairs.values()) == set(shapes), set(pairs.values()) ^ set(shapes)
    ours = {}
    for key, path in pairs.items():
        shape = shapes[path]
        if len(shape) == 4:  # ours is [h w i o], theirs [o i h w]
            order, wanted = (2, 3, 1, 0), (shape[3], shape[2], *shape[:2])
        else:  # ours is [i o] or [o], theirs [o i] or [o]
            order, wanted = tuple(reversed(range(len(shape)))), tuple(reversed(shape))
        if key not in state:
            raise UserError(f"{title} lacks {key}: expected an array of shape {wanted}, found none.")
        found = tuple(state[key].shape)
        if found != wanted:
            raise UserError(f"{key} in {title} does not fit: expected shape {wanted}, found {found}.")
        if not is_floating(state[key].dtype):
            raise UserError(f"{key} in {title} does not fit: expected floating-point, found {state[key].dtype}.")
        ours[path] = np.array(np.transpose(state[key], order), np.float32, order="C")
    for key in state:
        if key not in pairs and not beside.match(key):
            raise UserError(
                f"{key} in {title} is unknown: expected only tensors of the network that its other keys describe, "
                f"found one of shape {tuple(state[key].shape)}."
            )
    return traverse_util.unflatten_dict(ours)


def _layer(torch: str, path: tuple[str, ...], weight: str = "kernel") -> Iterator[Pair]:
    """Lists the weight and the bias of a layer."""
    yield f"{torch}.weight", (*path, weight)
    yield f"{torch}.bias", (*path, "bias")


def _block_pairs(torch: str, path: tuple[str, ...], changes: bool) -> Iterator[Pair]:
    """Lists the tensors of a residual block, with a shortcut if the number of channels changes."""
    for i in "12":
        yield from _layer(f"{torch}.res_block.block{i}.block.0", (*path, f"norm{i}"), "scale")
        yield from _layer(f"{torch}.res_block.block{i}.block.3", (*path, f"conv{i}"))
    yield from _layer(f"{torch}.res_block.noise_func.noise_func.0", (*path, "emb"))
    if changes:
        yield from _layer(f"{torch}.res_block.res_conv", (*path, "shortcut"))


def _attention_pairs(torch: str, path: tuple[str, ...]) -> Iterator[Pair]:
    """Lists the tensors of self-attention."""
    yield from _layer(f"{torch}.attn.norm", (*path, "norm"), "scale")
    yield f"{torch}.attn.qkv.weight", (*path, "qkv", "kernel")
    yield from _layer(f"{torch}.attn.out", (*path, "proj_out"))


def _unet_pairs(fields: Mapping[str, Any], path: tuple[str, ...], implicit: bool) -> Iterator[Pair]:
    """Lists the tensors of the U-Net; `implicit` is IDM's. The public code numbers layers, and ours have levels."""
    mults, blocks = fields["channel_mult"], fields["num_res_blocks"]
    for i, number in enumerate((1, 3)):
        yield from _layer(f"{PREFIX}noise_level_mlp.{number}", (*path, f"noise_embed_{i}"))
    yield from _layer(f"{PREFIX}downs.0", (*path, "conv_in"))
    number, width, skips = 1, 1, [1]
    for level, mult in enumerate(mults):
        for i in range(blocks):
            torch = f"{PREFIX}downs.{number}"
            yield from _block_pairs(torch, (*path, f"down_{level}_block_{i}"), mult != width)
            if level in fields["attention_levels"]:
                yield from _attention_pairs(torch, (*path, f"down_{level}_attn_{i}"))
            number, width = number + 1, mult
            skips.append(width)
        if level < len(mults) - 1:
            yield from _layer(f"{PREFIX}downs.{number}.conv", (*path, f"down_{level}_downsample"))
            number += 1
            skips.append(width)
    yield from _block_pairs(f"{PREFIX}mid.0", (*path, "mid_block_1"), False)
    yield from _attention_pairs(f"{PREFIX}mid.0", (*path, "mid_attn"))
    yield from _block_pairs(f"{PREFIX}mid.1", (*path, "mid_block_2"), False)
    number = 0
    for level, mult in reversed(list(enumerate(mults))):
        for i in range(blocks + 1):
            torch = f"{PREFIX}ups.{number}"
            yield from _block_pairs(torch, (*path, f"up_{level}_block_{i}"), width + skips.pop() != mult)
            if level in fields["attention_levels"]:
                yield from _attention_pairs(torch, (*path, f"up_{level}_attn_{i}"))
            number, width = number + 1, mult
        if level:
            torch, here = f"{PREFIX}ups.{number}", (*path, f"up_{level}_upsample")
            yield from _implicit_pairs(torch, here) if implicit else _layer(f"{torch}.conv", here)
            number += 1
    yield from _layer(f"{PREFIX}final_conv.block.0", (*path, "norm_out"), "scale")
    yield from _layer(f"{PREFIX}final_conv.block.3", (*path, "conv_out"))


def _implicit_pairs(torch: str, path: tuple[str, ...]) -> Iterator[Pair]:
    """Lists the tensors of a coordinate MLP and of the activation before it."""
    yield f"{torch}.style.activate.bias", (*path, "bias")
    for i in "01":
        yield f"{torch}.imnet.{i}.weight", (*path, f"kernel_{i}")
        yield f"{torch}.imnet.{i}.bias", (*path, f"bias_{i}")


def _encoder_pairs(blocks: int) -> Iterator[Pair]:
    """Lists the tensors of the network that makes IDM's condition."""
    for entry in edsr_entries(blocks, path=("encoder", "edsr")):
        yield from _layer(entry.torch, entry.path)
    yield from _layer("encoder.tail.0", ("encoder", "conv_out"))


def _guidance_pairs(levels: int) -> Iterator[Pair]:
    """Lists the tensors of the network that guides the levels; the bias of an activated layer is the activation's."""
    yield f"{PREFIX}conv_body_first.0.weight", ("guidance", "conv_in", "kernel")
    yield f"{PREFIX}conv_body_first.1.bias", ("guidance", "conv_in", "bias")
    for level in range(levels - 1):
        yield f"{PREFIX}conv_body_down.{level}.1.weight", ("guidance", f"down_{level}", "kernel")
        yield f"{PREFIX}conv_body_down.{level}.2.bias", ("guidance", f"down_{level}", "bias")
    for level in range(1, levels):
        for torch, name in (("scale1", "weight_generated"), ("scale2", "weight_lr"), ("shift.{}.0", "features")):
            layer = torch.format(level) if "{}" in torch else f"{torch}.{level}"
            yield from _layer(f"{PREFIX}condition_{layer}", ("guidance", f"{name}_{level}"))
