"""Configurations of the paper's experiments (5, Tables 1-4); the files configs/NAME_STAGE.py name them one by one.

Generation starts from a pre-trained encoder, frozen throughout, on which `decoder` trains D and f_theta;
super-resolution trains its own auto-encoder, `first_stage`. Sizes, networks, schedules and learning rates are
published; steps, warm-up and the batches of diffusion and align are our choice, since the paper gives none.
"""

from typing import Any, NamedTuple

import ml_collections

from arbiscale_jax.config import get_base_config

RATE_FROM_SCRATCH, RATE_FINE_TUNING = 1e-4, 1e-6  # of the U-Net
_VQ_F4 = dict(z_channels=3, double_z=False, ch_mult=(1, 2, 4))  # 4 pixels a latent cell; the code book is left out
_KL_F8 = dict(z_channels=4, double_z=True, ch_mult=(1, 2, 4, 4))
_SR_F4 = dict(z_channels=32, double_z=True, ch_mult=(1, 2, 4), attn_resolutions=(16,))
_SR_F8 = dict(z_channels=32, double_z=True, ch_mult=(1, 2, 4, 4))
_SR_UNET = dict(model_channels=256, channel_mult=(1, 2, 4, 4), attention_rates=(4, 2, 1))
_WILD_UNET = dict(model_channels=160, channel_mult=(1, 2, 2, 4), attention_rates=(16, 8))


class Experiment(NamedTuple):
    """What distinguishes an experiment from the others."""

    source: str  # data set, see data/catalog.py
    size: int  # side of the training images; rendered sizes go from a quarter of it to all of it
    lr_size: int  # side of the low-resolution image; 0: generation
    first_stage: dict[str, Any]
    unet: dict[str, Any]
    schedule: tuple[float, float]  # linear_start, linear_end
    decoder_rate: float = 5e-5  # learning rate of the decoder, or of the whole auto-encoder


_generation_224 = Experiment(
    source="ffhq",
    size=256,
    lr_size=0,
    first_stage=_VQ_F4,
    unet=dict(model_channels=224, channel_mult=(1, 2, 3, 4), attention_rates=(8, 4, 2)),
    schedule=(0.0015, 0.0195),
    decoder_rate=5e-6,
)
_lsun_sr = Experiment("lsun_bedroom", 256, 16, _SR_F8, _SR_UNET, (0.0001, 0.015))
EXPERIMENTS = {
    "ffhq": _generation_224,
    "lsun_bedroom": _generation_224._replace(source="lsun_bedroom"),
    "lsun_church": Experiment(
        source="lsun_church",
        size=256,
        lr_size=0,
        first_stage=_KL_F8,
        unet=dict(
            model_channels=192,
            channel_mult=(1, 2, 2, 4, 4),
            attention_rates=(1, 2, 4, 8),
            num_heads=8,
            num_head_channels=0,
            scale_shift=True,
            resblock_updown=True,
        ),
        schedule=(0.0015, 0.0155),
    ),
    "faces_sr": Experiment("ffhq", 128, 16, _SR_F4, _SR_UNET, (0.0001, 0.015)),
    "lsun_bedroom_sr": _lsun_sr,
    "lsun_tower_sr": _lsun_sr._replace(source="lsun_tower"),
    "div2k_sr": Experiment("div2k", 192, 48, _VQ_F4, _WILD_UNET, (0.0015, 0.0155)),
    # rates 12 and 6 are the published file's; no level has them, so that only the middle attends
    "df2k_sr": Experiment("df2k", 192, 48, _VQ_F4, {**_WILD_UNET, "attention_rates": (12, 6)}, (0.0015, 0.0155)),
}
_WILD = ("div2k", "df2k")  # pictures larger than the crops, with no upright


def stages(name: str) -> tuple[str, str, str]:
    """Returns the stages of an experiment in order: the ends of its configurations' names."""
    return "first_stage" if EXPERIMENTS[name].lr_size else "decoder", "diffusion", "align"


def get_experiment_config(name: str, stage: str) -> ml_collections.ConfigDict:
    """Returns the configuration of a stage of an experiment. Raises: ValueError if it has no such stage."""
    if name not in EXPERIMENTS or stage not in stages(name):
        known = ", ".join(f"{one}_{stage}" for one in EXPERIMENTS for stage in stages(one))
        raise ValueError(f"The experiments are {known}, got {name}_{stage}.")
    one, config = EXPERIMENTS[name], get_base_config()
    config.stage = "first_stage" if stage == "decoder" else stage
    config.model.first_stage.update(resolution=one.size, **one.first_stage)
    config.model.unet.update(one.unet)
    config.model.schedule.update(linear_start=one.schedule[0], linear_end=one.schedule[1])
    config.model.sampling.size = one.size
    config.loss.freeze_encoder = not one.lr_size
    config.data.update(source=one.source, image_size=one.size, workers=4, target_max=one.size)
    config.data.update(center_crop=one.source not in _WILD, transpose=one.source in _WILD)
    config.data.update(target_min=one.size // 4, target_patch=one.size // 4)
    if one.lr_size:
        config.model.condition.update(enabled=True, upsampling=one.size / one.lr_size)
    if one.lr_size and stage != "first_stage":
        config.data.lr_size = one.lr_size
    if stage == "diffusion":
        config.train.update(
            steps=500_000, batch_size=16, learning_rate=RATE_FROM_SCRATCH, warmup_steps=1000, checkpoint_every=5000
        )
    elif stage == "align":
        config.train.update(steps=20_000, batch_size=8, learning_rate=RATE_FINE_TUNING)
        config.data.update(target_min=one.size, target_patch=one.size // 2)  # windows of the picture itself, Eq. 7
    else:
        config.train.update(steps=200_000, batch_size=8, learning_rate=one.decoder_rate, checkpoint_every=5000)
    config.train.val_every = config.train.checkpoint_every
    return config.lock()
