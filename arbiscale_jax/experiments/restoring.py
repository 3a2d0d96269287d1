"""Builds the configurations of the restoring model, which the files configs/restore_*.py name.

The model does super-resolution of real photographs with networks that compute no statistic over space
(models/local.py). It has one latent cell per input pixel and a U-Net that corrects the condition in one evaluation, and
it is trained on clean and damaged examples that the devices make (data/synthesis).
"""

import ml_collections

from .base import get_base_config
from .quickstart import STAGES

MACHINES = ("cpu", "gpu")
_FIRST_STAGE_VARIANTS = {  # LR side, window, least and largest scale, share of the steps
    "cpu": ((24, 64, 3.0, 6.0, 0.6), (16, 80, 5.0, 16.0, 0.2), (40, 32, 1.0, 3.0, 0.2)),
    "gpu": ((32, 88, 3.0, 6.0, 0.6), (16, 80, 5.0, 16.0, 0.2), (64, 56, 1.0, 3.0, 0.2)),
}
_VARIANTS = {
    "cpu": ((32, 88, 3.0, 8.0, 0.65), (48, 80, 2.0, 3.0, 0.2), (48, 40, 1.0, 2.0, 0.1), (16, 80, 6.0, 16.0, 0.05)),
    "gpu": ((48, 136, 3.0, 8.0, 0.65), (64, 120, 2.0, 3.0, 0.2), (64, 56, 1.0, 2.0, 0.1), (24, 136, 6.0, 16.0, 0.05)),
}


def get_restoring_config(stage: str, machine: str = "cpu") -> ml_collections.ConfigDict:
    """Returns the configuration of a stage of the restoring model.

    Args:
      stage: one of STAGES.
      machine: cpu for hours on two cores, or gpu for minutes, with the same networks, larger batches and windows and
        bfloat16.

    Returns:
      The locked configuration.

    Raises:
      ValueError: if the stage or machine is unknown.
    """
    if stage not in STAGES or machine not in MACHINES:
        raise ValueError(f"The restoring model has the stages {STAGES} on {MACHINES}, got {stage!r}, {machine!r}.")
    config = get_base_config()
    config.stage = stage
    set_networks(config.model)
    config.data.update(source="folder", root="data/photos", image_size=128, lr_size=32, degradation="real")
    config.data.update(target_min=96, target_max=128, target_patch=96, transpose=True)
    config.data.synthesis.update(enabled=True, tiles_per_image=4, lettered=60)
    variants = _FIRST_STAGE_VARIANTS if stage == "first_stage" else _VARIANTS
    with config.ignore_type():
        config.data.synthesis.variants = variants[machine]
    config.train.update(steps=1_000_000, batch_size=4, warmup_steps=50, ema_decay=0.998, schedule="cosine")
    config.train.update(val_every=1000, checkpoint_every=250, log_every=50, final_lr=0.02)
    rates = {"first_stage": 5e-4, "diffusion": 5e-4, "align": 3e-4}
    minutes = {"first_stage": 15.0, "diffusion": 30.0, "align": 300.0}
    config.train.update(learning_rate=rates[stage], minutes=minutes[stage])
    config.loss.update(lpips_net="vgg", lpips_shift=15, coarse_weight=1.0)
    {"first_stage": _first_stage, "diffusion": _diffusion, "align": _align}[stage](config)
    if machine == "gpu":
        config.dtype = "bfloat16"
        config.train.update(batch_size=48, val_every=0, checkpoint_every=2000, log_every=100)
    return config.lock()


def set_networks(model: ml_collections.ConfigDict) -> None:
    """Sets the restoring model's networks: 9 MFLOP per input pixel at x4 and 7.8 million weights (docs/RESULTS.md)."""
    model.first_stage.update(architecture="linear_code", norm="channel", z_channels=24, ch=96, num_res_blocks=1)
    model.first_stage.subcell.update(blocks=2, features=32, convs=2)
    model.liif.hidden = (32, 32, 32)
    model.unet.update(architecture="local", norm="channel", model_channels=128, strength=True, mid_attention=False)
    model.unet.attention_rates = ()
    with model.ignore_type():
        model.unet.channel_mult = (1, 1.25, 1.75)
        model.unet.num_res_blocks = (3, 2, 2)
    model.condition.update(enabled=True, interpolation="bicubic", upsampling=4.0)
    # f_theta was trained with 3 (finest) to 16 pixels per latent cell; a pixel's size in sub-cells is 8 / that number
    model.sampling.update(steps=1, sampler="ddim_trailing", border=4, finest=3.0, cell_min=0.5, cell_max=2.7)


def _first_stage(config) -> None:
    config.loss.update(lpips_weight=0.2, spectrum_weight=0.02)


def _diffusion(config) -> None:
    config.loss.sampled_times = 0.25


def _align(config) -> None:
    config.loss.update(align_mode="sampling", align_steps=1, align_weight="one", align_norm="l1", lambda_dm=0.0)
    config.loss.update(align_decoder=True, align_true_weight=0.5, align_lpips_weight=0.25, spectrum_weight=0.02)
    config.loss.update(disc_net="unet", disc_loss="logistic", align_disc_weight=0.1)
    config.loss.update(adaptive_weight=False, disc_learning_rate=1e-4)
