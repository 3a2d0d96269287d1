"""Translates the reference implementation's description of a model (`arch`) into our `model` configuration."""

from collections.abc import Mapping

from arbiscale_jax.errors import UserError

_ANY = object()
# options of the reference's modules that do not become ours: _ANY for those that do not matter, else the only value
# that is supported
_ONLY = {
    "first_stage": {
        "in_channels": 3,
        "out_ch": 3,
        "dropout": _ANY,
        "resamp_with_conv": True,
        "use_linear_attn": False,
        "tanh_out": _ANY,  # belongs to a decoder that upsamples
    },
    "liif": {"in_dim": _ANY, "out_dim": 3, "feat_unfold": False},
    "unet": {
        "image_size": _ANY,
        "in_channels": _ANY,
        "out_channels": _ANY,
        "use_checkpoint": _ANY,
        "use_fp16": _ANY,
        "legacy": _ANY,
        "transformer_depth": _ANY,
        "dims": 2,
        "conv_resample": True,
        "num_classes": None,
        "context_dim": None,
        "n_embed": None,
        "num_attention_blocks": None,
        "disable_self_attentions": None,
        "num_heads_upsample": -1,
        "use_spatial_transformer": False,
        "use_new_attention_order": False,
    },
}
_WHOLE, _WHOLES, _SWITCH, _NUMBER = "a whole number >= 1", "a list of whole numbers >= 1", "true or false", "a number"
_LEVELS = "a list of one whole number >= 1 or more"
_TAKEN = {
    "first_stage": {
        "double_z": _SWITCH,
        "z_channels": _WHOLE,
        "embed_dim": _WHOLE,
        "resolution": _WHOLE,
        "ch": _WHOLE,
        "ch_mult": _LEVELS,
        "num_res_blocks": _WHOLE,
        "attn_resolutions": _WHOLES,
        "attn_type": "vanilla or none",
    },
    "liif": {"hidden_list": _WHOLES, "cell_decode": _SWITCH, "local_ensemble": _SWITCH},
    "unet": {
        "model_channels": _WHOLE,
        "attention_resolutions": _WHOLES,
        "num_res_blocks": f"{_WHOLE}, or a list of them",
        "channel_mult": _LEVELS,
        "num_heads": f"-1 or {_WHOLE}",
        "num_head_channels": f"-1 or {_WHOLE}",
        "use_scale_shift_norm": _SWITCH,
        "resblock_updown": _SWITCH,
        "dropout": _NUMBER,
    },
}

_TOP = {
    "inp_size": _WHOLE,
    "timesteps": _WHOLE,
    "linear_start": _NUMBER,
    "linear_end": _NUMBER,
    "scale_factor": _NUMBER,
}


def _is_whole(value, least=1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_wholes(value) -> bool:
    return isinstance(value, list | tuple) and all(_is_whole(x) for x in value)


_FITS = {
    _SWITCH: lambda x: isinstance(x, bool),
    _WHOLE: _is_whole,
    _WHOLES: _is_wholes,
    _LEVELS: lambda x: _is_wholes(x) and len(x) > 0,
    _NUMBER: lambda x: isinstance(x, int | float) and not isinstance(x, bool),
    "vanilla or none": lambda x: x in ("vanilla", "none"),
    f"{_WHOLE}, or a list of them": lambda x: _is_whole(x) or _is_wholes(x),
    f"-1 or {_WHOLE}": lambda x: x == -1 or _is_whole(x),
}


def _part(arch: Mapping, name: str) -> dict:
    if not isinstance(arch.get(name, {}), Mapping):
        raise UserError(f"arch.{name} must be a mapping, got {arch[name]!r}.")
    part = dict(arch.get(name, {}))
    for key, value in part.items():
        if key in _TAKEN[name]:
            if not _FITS[_TAKEN[name][key]](value):
                raise UserError(f"arch.{name}.{key} is {_TAKEN[name][key]}, got {value!r}.")
            continue
        if key not in _ONLY[name]:
            raise UserError(
                f"arch.{name}.{key} is unknown; known are {', '.join(sorted(set(_TAKEN[name]) | set(_ONLY[name])))}."
            )
        only = _ONLY[name][key]
        if only is not _ANY and value != only:
            raise UserError(f"arch.{name}.{key} = {value!r} is not supported, only {only!r}.")
    return part


def _heads(unet: Mapping) -> dict:
    """Checks the levels, and returns num_heads and num_head_channels, one of them 0 (the former if both are given)."""
    channels, heads = (max(unet.get(key, -1), 0) for key in ("num_head_channels", "num_heads"))
    if not (channels or heads):
        raise UserError("arch.unet gives neither num_heads nor num_head_channels; attention needs one.")
    mults, rates = unet.get("channel_mult", (1, 2, 4, 8)), unet["attention_resolutions"]
    blocks = unet["num_res_blocks"]
    if not isinstance(blocks, int) and len(blocks) != len(mults):
        raise UserError(f"arch.unet.num_res_blocks has {len(blocks)} entries for the {len(mults)} of channel_mult.")
    attending = {mult for level, mult in enumerate(mults) if 2**level in rates} | {mults[-1]}
    for width in (unet["model_channels"] * mult for mult in sorted(attending)):
        if width % (channels or heads):
            name = "num_head_channels" if channels else "num_heads"
            raise UserError(f"arch.unet.{name} = {channels or heads} does not divide the {width} channels it attends.")
    return {"num_heads": 0 if channels else heads, "num_head_channels": channels}


def _check_channels(first_stage: Mapping, unet: Mapping, conditional: bool) -> None:
    z = first_stage["z_channels"]
    if first_stage.get("embed_dim", z) != z:
        raise UserError(f"arch.first_stage.embed_dim = {first_stage['embed_dim']} must be z_channels = {z}.")
    expected = (z * (2 if conditional else 1), z)
    stated = (unet.get("in_channels", expected[0]), unet.get("out_channels", z))
    if stated != expected:
        raise UserError(
            f"arch.unet maps {stated[0]} to {stated[1]} channels, but z_channels = {z} with conditional = "
            f"{conditional} needs {expected[0]} to {expected[1]}."
        )


def model_config(arch: Mapping, decoder_attention: str = "constant") -> dict:
    """Builds our `model` configuration from an `arch` mapping (parity/*.json show the format).

    Args:
      arch: the mapping.
      decoder_attention: the nominal resolution inside D, constant or doubled.

    Returns:
      The fields of `model` that differ between architectures.

    Raises:
      UserError: if a field is unknown, missing or unsupported; the message names it.
    """
    for key in _TOP:
        if key in arch and not _FITS[_TOP[key]](arch[key]):
            raise UserError(f"arch.{key} is {_TOP[key]}, got {arch[key]!r}.")
    first_stage, liif, unet = (_part(arch, name) for name in ("first_stage", "liif", "unet"))
    try:
        conditional = bool(arch["conditional"])
        _check_channels(first_stage, unet, conditional)
        inp_size, lr_size = arch["inp_size"], arch.get("lr_size")
        if conditional and not _is_whole(lr_size):
            raise UserError(f"arch.lr_size is {lr_size!r}: a conditional model needs the LR training size in pixels.")
        attends = first_stage.get("attn_type", "vanilla") != "none"
        return dict(
            first_stage=dict(
                z_channels=first_stage["z_channels"],
                double_z=first_stage.get("double_z", True),
                ch=first_stage["ch"],
                ch_mult=tuple(first_stage["ch_mult"]),
                num_res_blocks=first_stage["num_res_blocks"],
                resolution=first_stage["resolution"],
                attn_resolutions=tuple(first_stage["attn_resolutions"]) if attends else (),
                mid_attention=attends,
                decoder_attention=decoder_attention,
                num_groups=32,
            ),
            liif=dict(
                hidden=tuple(liif["hidden_list"]),
                local_ensemble=liif.get("local_ensemble", True),
                cell_decode=liif.get("cell_decode", True),
            ),
            unet=dict(
                model_channels=unet["model_channels"],
                channel_mult=tuple(unet.get("channel_mult", (1, 2, 4, 8))),
                num_res_blocks=unet["num_res_blocks"],
                attention_rates=tuple(unet["attention_resolutions"]),
                **_heads(unet),
                scale_shift=unet.get("use_scale_shift_norm", False),
                resblock_updown=unet.get("resblock_updown", False),
                dropout=unet.get("dropout", 0.0),
                num_groups=32,
            ),
            schedule=dict(
                timesteps=arch.get("timesteps", 1000), linear_start=arch["linear_start"], linear_end=arch["linear_end"]
            ),
            # without a condition the last two have no meaning and keep the base configuration's values
            condition=dict(
                enabled=conditional,
                interpolation="nearest" if conditional else "bilinear",
                upsampling=inp_size / lr_size if conditional else 4.0,
            ),
            sampling=dict(steps=200, sampler="ddim", eta=0.0, size=inp_size),
        )
    except KeyError as e:
        raise UserError(f"arch lacks the field {e}; the mapping has the form of the reference's configuration.") from e
