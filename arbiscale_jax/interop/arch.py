"""The reference implementation's description of a model (`arch`) as our `model` configuration."""

import json
from collections.abc import Mapping
from pathlib import Path

from arbiscale_jax.errors import UserError

# options of the reference's modules that we know; where a value is given, the only one supported
_ONLY = {
    "first_stage": {"in_channels": 3, "out_ch": 3, "dropout": None, "resamp_with_conv": True, "use_linear_attn": False},
    "liif": {},
    "unet": {
        "image_size": None,
        "in_channels": None,
        "out_channels": None,
        "use_checkpoint": None,
        "use_fp16": None,
        "legacy": None,
        "dims": 2,
        "conv_resample": True,
        "num_classes": None,
        "num_heads_upsample": -1,
        "use_spatial_transformer": False,
        "use_new_attention_order": False,
    },
}
_TAKEN = {
    "first_stage": {
        "double_z",
        "z_channels",
        "resolution",
        "ch",
        "ch_mult",
        "num_res_blocks",
        "attn_resolutions",
        "attn_type",
    },
    "liif": {"hidden_list", "cell_decode", "local_ensemble"},
    "unet": {
        "model_channels",
        "attention_resolutions",
        "num_res_blocks",
        "channel_mult",
        "num_heads",
        "num_head_channels",
        "use_scale_shift_norm",
        "resblock_updown",
        "dropout",
    },
}


def read_arch(arch: Mapping | str | Path) -> Mapping:
    """Returns `arch` itself, or what the JSON file it names holds.

    Raises: UserError if the file is missing or no JSON object.
    """
    if isinstance(arch, Mapping):
        return arch
    try:
        found = json.loads(Path(arch).read_text())
    except OSError as e:
        raise UserError(
            f"The architecture file {arch} cannot be read: {e.strerror}; pass a JSON file or a mapping."
        ) from e
    except ValueError as e:
        raise UserError(f"The architecture file {arch} is not JSON: {e}.") from e
    if not isinstance(found, dict):
        raise UserError(f"The architecture file {arch} holds no JSON object.")
    return found


def _part(arch: Mapping, name: str) -> dict:
    part = dict(arch.get(name, {}))
    for key, value in part.items():
        if key in _TAKEN[name]:
            continue
        if key not in _ONLY[name]:
            raise UserError(
                f"arch.{name}.{key} is unknown; known are {', '.join(sorted(_TAKEN[name] | set(_ONLY[name])))}."
            )
        only = _ONLY[name][key]
        if only is not None and value != only:
            raise UserError(f"arch.{name}.{key} = {value!r} is not supported, only {only!r}.")
    return part


def model_config(arch: Mapping, decoder_attention: str = "constant") -> dict:
    """Builds our `model` configuration from an `arch` mapping (parity/*.json show the format).

    Raises: UserError for an unknown, missing or unsupported field, which it names.
    """
    first_stage, liif, unet = (_part(arch, name) for name in ("first_stage", "liif", "unet"))
    try:
        z_channels = first_stage["z_channels"]
        conditional = bool(arch["conditional"])
        inp_size, lr_size = arch["inp_size"], arch.get("lr_size")
        expected = (z_channels * (2 if conditional else 1), z_channels)
        stated = (unet.get("in_channels", expected[0]), unet.get("out_channels", z_channels))
        if stated != expected:
            raise UserError(
                f"arch.unet maps {stated[0]} to {stated[1]} channels, but z_channels = {z_channels} with conditional = "
                f"{conditional} needs {expected[0]} to {expected[1]}."
            )
        if conditional and not lr_size:
            raise UserError("arch.lr_size is missing: a conditional model needs the LR training size.")
        head_channels = unet.get("num_head_channels", -1)
        config = dict(
            first_stage=dict(
                z_channels=z_channels,
                double_z=first_stage.get("double_z", True),
                ch=first_stage["ch"],
                ch_mult=tuple(first_stage["ch_mult"]),
                num_res_blocks=first_stage["num_res_blocks"],
                resolution=first_stage["resolution"],
                attn_resolutions=tuple(first_stage["attn_resolutions"]),
                mid_attention=first_stage.get("attn_type", "vanilla") != "none",
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
                num_heads=max(unet.get("num_heads", -1), 0),
                num_head_channels=max(head_channels, 0),
                scale_shift=unet.get("use_scale_shift_norm", False),
                resblock_updown=unet.get("resblock_updown", False),
                dropout=unet.get("dropout", 0.0),
                num_groups=32,
            ),
            schedule=dict(
                timesteps=arch.get("timesteps", 1000), linear_start=arch["linear_start"], linear_end=arch["linear_end"]
            ),
            condition=dict(
                enabled=conditional, interpolation="nearest", upsampling=inp_size / lr_size if conditional else 1.0
            ),
            sampling=dict(steps=200, sampler="ddim", eta=0.0, size=inp_size),
        )
    except KeyError as e:
        raise UserError(f"arch lacks the field {e}; the mapping has the form of the reference's configuration.") from e
    if not (config["unet"]["num_heads"] or config["unet"]["num_head_channels"]):
        raise UserError("arch.unet gives neither num_heads nor num_head_channels; attention needs one.")
    return config
