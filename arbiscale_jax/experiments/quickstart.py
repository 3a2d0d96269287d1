"""Builds the configurations of the quick start, whose stages train in minutes on two CPU cores without a download.

The files configs/quickstart_*.py name them; `arbiscale quickstart` runs the three stages of `sr` one after another.
"""

import ml_collections

from .base import get_base_config

STAGES = ("first_stage", "diffusion", "align")
MINUTES = 6.0  # training time per stage


def get_quickstart_config(task: str, stage: str) -> ml_collections.ConfigDict:
    """Returns the locked configuration of a stage for the task sr (super-resolution) or gen (generation).

    Raises:
      ValueError: if the task or the stage is unknown.
    """
    if task not in ("sr", "gen") or stage not in STAGES:
        raise ValueError(f"A quick start is sr or gen with one of {STAGES}, got {task!r}, {stage!r}.")
    config = get_base_config()
    config.stage = stage
    config.model.first_stage.update(
        z_channels=6,
        double_z=True,
        ch=16,
        ch_mult=(1, 2),
        num_res_blocks=1,
        resolution=48,
        mid_attention=False,
        num_groups=1,
    )
    config.model.liif.hidden = (64, 64, 64, 64)
    config.model.unet.update(
        model_channels=32, channel_mult=(1, 2, 3), num_res_blocks=1, attention_rates=(), num_groups=4
    )
    config.model.sampling.update(steps=50, size=48)
    config.data.update(image_size=48, min_crop=0.5, recolor=0.5, target_min=24, target_max=96, target_patch=24)
    config.train.update(steps=1_000_000, minutes=MINUTES, batch_size=8, warmup_steps=50, ema_decay=0.999)
    config.train.update(schedule="cosine", val_every=500, checkpoint_every=500)
    config.loss.kl_weight = 1e-3  # gives all latent channels a similar scale: a small U-Net learns them sooner
    config.train.learning_rate = {"first_stage": 2e-3, "diffusion": 1e-3, "align": 2e-5}[stage]
    if task == "sr":
        config.model.condition.update(enabled=True, upsampling=4.0)
        # after minutes of training the U-Net has not learnt to find colours in noise
        config.model.sampling.update(steps=5, start=0.3)
        config.data.transpose = True
        if stage != "first_stage":
            config.data.lr_size = 12
    return config.lock()
