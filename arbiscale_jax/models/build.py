"""Builds networks from the `model` part of a configuration, which is any nested mapping."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from .autoencoder import ConvDecoder, ConvEncoder, PointwiseDecoder
from .first_stage import FirstStage
from .liif import Liif
from .local import LinearEncoder, LocalUNet, SubcellDecoder
from .unet import UNet

FIRST_STAGES, UNETS = ("conv", "linear_code"), ("adm", "local")  # architectures
DECODERS = ("conv", "pointwise", "subcell")  # D of the architecture conv; that of linear_code is subcell
DECODER_ATTENTION = ("constant", "doubled")  # rules for the nominal resolution in D, see attention_levels
_ADDED = {  # fields that were added later, with their values for a configuration that lacks them
    "first_stage": {
        "architecture": "conv",
        "decoder": "conv",
        "decoder_ch": 0,
        "norm": "group",
        "subcell": {"blocks": 4, "features": 32, "convs": 2},
    },
    "unet": {
        "architecture": "adm",
        "norm": "group",
        "mid_attention": True,
        "strength": False,
        "labels": {"styles": [], "words": [], "most_words": 0, "examples": []},
    },
    "sampling": {
        "guidance": 1.0,
        "guidance_low": 0.0,
        "guidance_high": 1.0,
        "restore": -1.0,
        "statistics": "whole",
        "finest": 0.0,
        "densest": 0.0,
        "start": 0.0,
        "refine": 0,
        "border": 0,
        "cell_min": 0.0,
        "cell_max": 0.0,
    },
}


def complete(model: Mapping) -> dict:
    """Returns the `model` part of a configuration together with the fields that an earlier version did not have."""
    return {name: {**_ADDED.get(name, {}), **section} for name, section in model.items()}


def reach(model: Mapping, evaluations: int) -> int | None:
    """Returns up to how many latent cells away the input can influence the render of a cell, through all networks.

    Args:
      model: the `model` part of a configuration.
      evaluations: how often the U-Net is evaluated.

    Returns:
      A number of latent cells, or None if a network has attention or a statistic over space, since then every cell
      influences every other cell.
    """
    model = complete(model)
    first, unet = model["first_stage"], model["unet"]
    kinds = (first["architecture"], unet["architecture"])
    if "group" in (first["norm"], unet["norm"]) or kinds != ("linear_code", "local"):
        return None
    levels, last = unet["channel_mult"], len(unet["channel_mult"]) - 1
    blocks = unet["num_res_blocks"]
    blocks = [blocks] * (last + 1) if isinstance(blocks, int) else blocks
    runs = [2 * n + (level == 0) if level < last else n for level, n in enumerate(blocks[: len(levels)])]
    of_unet = 2 + sum(2 * n * 2**level for level, n in enumerate(runs)) + 2 ** (last + 1)  # two 3x3 per block; strides
    of_interpolation, of_encoder = 2, 1 + 2 * first["num_res_blocks"]
    return of_interpolation + of_encoder + evaluations * of_unet + (decoder_reach(model) or 0)


def decoder_reach(model: Mapping) -> int | None:
    """Returns up to how many latent cells away a latent can influence D's features of a cell.

    It is None if D has attention or a statistic over space. The argument is the `model` part of a configuration.
    """
    first = complete(model)["first_stage"]
    if first["norm"] == "group" or first["architecture"] != "linear_code":
        return None
    return 2 + 2 * first["subcell"]["blocks"] + first["subcell"]["convs"]  # an upper bound


def predicts(model: Mapping) -> str:
    """Returns what the U-Net predicts: "eps" or "z_0"."""
    return "z_0" if complete(model)["unet"]["architecture"] == "local" else "eps"


def has_subcells(model: Mapping) -> bool:
    """Returns whether D gives features of sub-cells, f x f for each latent cell (`local.SubcellDecoder`)."""
    first = complete(model)["first_stage"]
    return first["architecture"] == "linear_code" or first["decoder"] == "subcell"


def spatial_factor(model: Mapping) -> int:
    """Returns f, the number of image pixels per latent cell along a side."""
    return 2 ** (len(model["first_stage"]["ch_mult"]) - 1)


def attention_levels(first_stage: Mapping, part: str) -> tuple[int, ...]:
    """Returns the levels of the encoder or the decoder that have self-attention.

    The nominal resolution of the encoder is halved from each level to the next. That of the decoder begins at the
    resolution of the latent. Since the decoder upsamples nothing, in the reference implementation and its checkpoints
    it stays there, so either all levels or none have attention. With decoder_attention="doubled" it is doubled from
    each level to the next instead, as if the decoder upsampled.

    Args:
      first_stage: the `model.first_stage` part of a configuration.
      part: "encoder" or "decoder".

    Raises:
      ValueError: if decoder_attention is unknown.
    """
    wanted, levels = set(first_stage["attn_resolutions"]), range(len(first_stage["ch_mult"]))
    rule = first_stage.get("decoder_attention", "constant")
    if rule not in DECODER_ATTENTION:
        raise ValueError(f"decoder_attention is one of {', '.join(DECODER_ATTENTION)}, got {rule!r}.")
    if part == "decoder" and rule == "constant":
        return tuple(levels) if first_stage["resolution"] >> levels[-1] in wanted else ()
    return tuple(level for level in levels if first_stage["resolution"] >> level in wanted)


def build_first_stage(model: Mapping, dtype=jnp.float32, remat: bool = False) -> FirstStage:
    """Builds the first stage: E, D and f_theta.

    Args:
      model: the `model` part of a configuration.
      dtype: compute type; parameters are float32.
      remat: recompute activations in the backward pass, which saves memory in training.

    Raises:
      ValueError: if the architecture or the kind of D is unknown, or linear_code is combined with double_z.
    """
    model = complete(model)
    cfg, liif = model["first_stage"], model["liif"]
    if cfg["architecture"] not in FIRST_STAGES:
        raise ValueError(f"model.first_stage.architecture is one of {FIRST_STAGES}, got {cfg['architecture']!r}.")
    if cfg["decoder"] not in DECODERS:
        raise ValueError(f"model.first_stage.decoder is one of {DECODERS}, got {cfg['decoder']!r}.")
    shared = dict(z_channels=cfg["z_channels"], num_groups=cfg["num_groups"], norm=cfg["norm"])
    shared |= dict(remat=remat, dtype=dtype)
    own: dict[str, Any] = shared | dict(ch=cfg["ch"], num_res_blocks=cfg["num_res_blocks"])
    if cfg["architecture"] == "linear_code":
        if cfg["double_z"]:
            raise ValueError("A linear_code first stage has no variance; set model.first_stage.double_z=False.")
        encoder = LinearEncoder(**own, factor=spatial_factor(model))
    else:
        own |= dict(ch_mult=tuple(cfg["ch_mult"]), mid_attention=cfg["mid_attention"])
        encoder = ConvEncoder(**own, attn_levels=attention_levels(cfg, "encoder"), double_z=cfg["double_z"])
    decoder, features = _build_decoder(model, shared)
    f_theta = Liif(
        tuple(liif["hidden"]),
        liif["local_ensemble"],
        liif["cell_decode"],
        features,
        has_subcells(model),
        remat=remat,
        dtype=dtype,
    )
    return FirstStage(encoder=encoder, decoder=decoder, liif=f_theta)


def _build_decoder(model: dict, shared: Mapping) -> tuple[nn.Module, int]:
    """Builds D of a complete configuration; returns it and the channels of its features."""
    cfg = model["first_stage"]
    own = {**shared, "ch": cfg["decoder_ch"] or cfg["ch"]}
    if has_subcells(model):
        sub = cfg["subcell"]
        own |= dict(num_res_blocks=sub["blocks"], num_convs=sub["convs"], features=sub["features"])
        return SubcellDecoder(**own, factor=spatial_factor(model)), sub["features"]
    if cfg["decoder"] == "pointwise":
        return PointwiseDecoder(cfg["z_channels"]), cfg["z_channels"]
    own |= dict(ch_mult=tuple(cfg["ch_mult"]), mid_attention=cfg["mid_attention"], num_res_blocks=cfg["num_res_blocks"])
    return ConvDecoder(**own, attn_levels=attention_levels(cfg, "decoder")), own["ch"] * cfg["ch_mult"][0]


def build_unet(model: Mapping, dtype=jnp.float32, remat: bool = False) -> UNet | LocalUNet:
    """Builds the diffusion network, which predicts eps or z_0 (see `predicts`).

    With model.condition enabled its input has twice z_channels channels.

    Args:
      model: the `model` part of a configuration.
      dtype: compute type; parameters are float32.
      remat: recompute activations in the backward pass, which saves memory in training.

    Raises:
      ValueError: if the architecture is unknown, or labels are combined with a condition or another architecture.
    """
    model = complete(model)
    cfg, channels = model["unet"], model["first_stage"]["z_channels"]
    blocks = cfg["num_res_blocks"]
    blocks = blocks if isinstance(blocks, int) else tuple(blocks)
    shared: dict[str, Any] = dict(out_channels=channels, model_channels=cfg["model_channels"])
    shared |= dict(
        channel_mult=tuple(cfg["channel_mult"]),
        num_groups=cfg["num_groups"],
        norm=cfg["norm"],
        remat=remat,
        dtype=dtype,
    )
    styles, words = (len(cfg["labels"][name]) for name in ("styles", "words"))
    if (styles or words) and (model["condition"]["enabled"] or cfg["architecture"] != "adm"):
        raise ValueError(
            "model.unet.labels belong to a generator: they need model.unet.architecture=adm and "
            "model.condition.enabled=False."
        )
    if cfg["architecture"] == "local":
        blocks = (blocks,) * len(cfg["channel_mult"]) if isinstance(blocks, int) else blocks
        return LocalUNet(**shared, num_res_blocks=blocks, strength=cfg["strength"])
    if cfg["architecture"] != "adm":
        raise ValueError(f"model.unet.architecture is one of {UNETS}, got {cfg['architecture']!r}.")
    own = ("num_heads", "num_head_channels", "scale_shift", "resblock_updown", "dropout", "mid_attention")
    shared |= dict(attention_rates=tuple(cfg["attention_rates"]), styles=styles, words=words)
    return UNet(**shared, num_res_blocks=blocks, **{k: cfg[k] for k in own})
