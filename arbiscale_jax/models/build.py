"""Networks from the `model` part of a configuration (any nested mapping)."""

from collections.abc import Mapping

import jax.numpy as jnp

from .autoencoder import ConvDecoder, ConvEncoder
from .first_stage import FirstStage
from .liif import Liif
from .unet import UNet


def spatial_factor(model: Mapping) -> int:
    """Returns f, the image pixels a latent cell spans along a side."""
    return 2 ** (len(model["first_stage"]["ch_mult"]) - 1)


def attention_levels(first_stage: Mapping, part: str) -> tuple[int, ...]:
    """Levels with self-attention in the `encoder` or the `decoder`.

    The encoder's nominal resolution halves a level. The decoder's starts at the latent's; nothing is upsampled, so in
    the reference implementation (and in its checkpoints) it stays there: attention at every level or none. With
    decoder_attention="doubled" it doubles a level instead, as if the decoder upsampled.
    """
    wanted, levels = set(first_stage["attn_resolutions"]), range(len(first_stage["ch_mult"]))
    rule = first_stage.get("decoder_attention", "constant")
    if rule not in ("constant", "doubled"):
        raise ValueError(f"decoder_attention is constant or doubled, got {rule!r}.")
    if part == "decoder" and rule == "constant":
        return tuple(levels) if first_stage["resolution"] >> levels[-1] in wanted else ()
    return tuple(level for level in levels if first_stage["resolution"] >> level in wanted)


def build_first_stage(model: Mapping, dtype=jnp.float32, remat: bool = False) -> FirstStage:
    """Builds E, D and f_theta; `dtype` is the compute type, parameters are float32; `remat` saves training memory."""
    cfg, liif = model["first_stage"], model["liif"]
    shared = dict(
        z_channels=cfg["z_channels"],
        ch=cfg["ch"],
        ch_mult=tuple(cfg["ch_mult"]),
        num_res_blocks=cfg["num_res_blocks"],
        mid_attention=cfg["mid_attention"],
        num_groups=cfg["num_groups"],
        remat=remat,
        dtype=dtype,
    )
    return FirstStage(
        encoder=ConvEncoder(**shared, attn_levels=attention_levels(cfg, "encoder"), double_z=cfg["double_z"]),
        decoder=ConvDecoder(**shared, attn_levels=attention_levels(cfg, "decoder")),
        liif=Liif(
            tuple(liif["hidden"]),
            liif["local_ensemble"],
            liif["cell_decode"],
            cfg["ch"] * cfg["ch_mult"][0],
            remat=remat,
            dtype=dtype,
        ),
    )


def build_unet(model: Mapping, dtype=jnp.float32, remat: bool = False) -> UNet:
    """Builds eps_theta; it takes twice z_channels where model.condition is enabled."""
    cfg = dict(model["unet"])
    blocks = cfg.pop("num_res_blocks")
    return UNet(
        out_channels=model["first_stage"]["z_channels"],
        num_res_blocks=blocks if isinstance(blocks, int) else tuple(blocks),
        channel_mult=tuple(cfg.pop("channel_mult")),
        attention_rates=tuple(cfg.pop("attention_rates")),
        **cfg,
        remat=remat,
        dtype=dtype,
    )
