"""Lists the published experiments as `arch` mappings (paper section 5; settings of the reference implementation)."""

from typing import Any

_LIIF = {"hidden_list": [256, 256, 256, 256], "cell_decode": True, "local_ensemble": True}


def _first_stage(z_channels: int, resolution: int, ch_mult, double_z: bool, attn_resolutions=()) -> dict:
    return {
        "double_z": double_z,
        "z_channels": z_channels,
        "resolution": resolution,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": list(ch_mult),
        "num_res_blocks": 2,
        "attn_resolutions": list(attn_resolutions),
        "dropout": 0.0,
    }


def _arch(first_stage: dict, schedule, lr_size: int | None, model_channels: int, rates, mult, **unet) -> dict:
    """Builds a mapping; `unet` takes the place of the default, 32 channels per attention head."""
    z = first_stage["z_channels"]
    side = first_stage["resolution"] >> (len(first_stage["ch_mult"]) - 1)
    return {
        "first_stage": first_stage,
        "liif": dict(_LIIF),
        "unet": {
            "image_size": side,
            "in_channels": 2 * z if lr_size else z,
            "out_channels": z,
            "model_channels": model_channels,
            "attention_resolutions": list(rates),
            "num_res_blocks": 2,
            "channel_mult": list(mult),
            **(unet or {"num_head_channels": 32}),
        },
        "conditional": lr_size is not None,
        "image_size": side,
        "timesteps": 1000,
        "linear_start": schedule[0],
        "linear_end": schedule[1],
        "inp_size": first_stage["resolution"],
        "lr_size": lr_size,
    }


def published() -> dict[str, dict]:
    """Returns a new dict from the name of each experiment to its `arch` mapping."""
    f4: dict[str, Any] = dict(ch_mult=(1, 2, 4), double_z=False)
    generation: dict[str, Any] = dict(
        schedule=(0.0015, 0.0195), lr_size=None, model_channels=224, rates=(8, 4, 2), mult=(1, 2, 3, 4)
    )
    church = dict(num_heads=8, use_scale_shift_norm=True, resblock_updown=True)
    sr: dict[str, Any] = dict(
        schedule=(0.0001, 0.015), lr_size=16, model_channels=256, rates=(4, 2, 1), mult=(1, 2, 4, 4)
    )
    wild: dict[str, Any] = dict(schedule=(0.0015, 0.0155), lr_size=48, model_channels=160, mult=(1, 2, 2, 4))

    def lsun_sr():
        return _arch(_first_stage(32, 256, (1, 2, 4, 4), True), **sr)

    return {
        "ffhq": _arch(_first_stage(3, 256, **f4), **generation) | {"scale_factor": 1.0},
        "lsun_bedroom": _arch(_first_stage(3, 256, **f4), **generation) | {"scale_factor": 1.0},
        "lsun_church": _arch(
            _first_stage(4, 256, (1, 2, 4, 4), True),
            (0.0015, 0.0155),
            None,
            192,
            (1, 2, 4, 8),
            (1, 2, 2, 4, 4),
            **church,
        ),
        "faces_sr": _arch(_first_stage(32, 128, (1, 2, 4), True, [16]), **sr),
        "lsun_bedroom_sr": lsun_sr(),
        "lsun_tower_sr": lsun_sr(),
        "div2k_sr": _arch(_first_stage(3, 192, **f4), **wild, rates=(16, 8)),
        # the reference's DF2K file names rates that no level has, so that only the middle block has attention
        "df2k_sr": _arch(_first_stage(3, 192, **f4), **wild, rates=(12, 6)),
    }
