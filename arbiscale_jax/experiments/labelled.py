"""Builds the configurations of a generator of emoji that knows labels, which the files configs/emoji_labels_*.py name.

Its first stage starts from a linear code (models/local.py), is compared with true renders of up to 256 pixels, and has
a discriminator. Its U-Net is told the style and the words of each picture's name (data.labels), so that sampling
follows prompts. No weights of it are bundled.
"""

import ml_collections

from .base import get_base_config
from .quickstart import STAGES

MACHINES = ("cpu", "gpu")
SIDE = 256  # of the training pictures, which are read whole
# E sees 4 * 24 = 96 pixels, so a latent has 24 x 24 cells; renders are compared at 96 to 254 pixels, in windows of 64
_VARIANTS = ((24, 64, 4.0, 10.6, 1.0),)


def get_labelled_config(stage: str, machine: str = "cpu") -> ml_collections.ConfigDict:
    """Returns the configuration of a stage of the generator of emoji that knows labels.

    Args:
      stage: one of STAGES.
      machine: cpu for days on two cores, or gpu for minutes, with the same networks, larger batches and bfloat16.

    Returns:
      The locked configuration.

    Raises:
      ValueError: if the stage or machine is unknown.
    """
    if stage not in STAGES or machine not in MACHINES:
        raise ValueError(f"The labelled generator has the stages {STAGES} on {MACHINES}, got {stage!r}, {machine!r}.")
    config = get_base_config()
    config.stage = stage
    _set_networks(config.model)
    config.data.update(source="folder", root="data/emoji/train_256", labels="names", image_size=96, center_crop=True)
    config.data.update(val_source="folder", val_root="data/emoji/val_256")
    config.data.update(target_min=96, target_max=SIDE, target_patch=64)
    config.data.synthesis.update(enabled=True, tile=SIDE, whole=True)
    with config.ignore_type():
        config.data.synthesis.variants = _VARIANTS
    config.loss.update(lpips_net="vgg", lpips_shift=7)
    config.train.update(steps=1_000_000, batch_size=8, warmup_steps=100, ema_decay=0.999, schedule="cosine")
    config.train.update(val_every=1000, checkpoint_every=250, log_every=50, final_lr=0.02)
    rates = {"first_stage": 5e-4, "diffusion": 5e-4, "align": 5e-5}
    minutes = {"first_stage": 120.0, "diffusion": 600.0, "align": 30.0}
    config.train.update(learning_rate=rates[stage], minutes=minutes[stage])
    {"first_stage": _first_stage, "diffusion": _diffusion, "align": _align}[stage](config)
    if machine == "gpu":
        config.dtype = "bfloat16"
        config.train.batch_size = 256 if stage == "diffusion" else 64
        config.train.update(val_every=0, checkpoint_every=2000, log_every=100)
    return config.lock()


def _set_networks(model: ml_collections.ConfigDict) -> None:
    """Sets networks of 7.2 million weights with 1,300 words, which take 14.4 MB in half precision."""
    model.first_stage.update(architecture="linear_code", norm="channel", z_channels=8, ch=64, num_res_blocks=2)
    model.first_stage.subcell.update(blocks=3, features=24, convs=2)
    model.liif.hidden = (48, 48, 48)
    model.unet.update(model_channels=48, channel_mult=(1, 2, 3), num_res_blocks=2, attention_rates=(2, 4))
    model.unet.update(num_heads=4, num_head_channels=0, num_groups=8, scale_shift=True, dropout=0.1)
    # f_theta was trained with 4 to 10.6 pixels per latent cell; a pixel's size in sub-cells is 8 / that number
    model.sampling.update(steps=50, eta=1.0, size=96, cell_min=0.75, cell_max=2.0)


def _first_stage(config) -> None:
    config.loss.update(lpips_weight=0.2, coarse_weight=0.5, spectrum_weight=0.02)
    config.loss.update(disc_weight=0.05, disc_net="unet", disc_loss="logistic", disc_start=2000, adaptive_weight=False)


def _diffusion(config) -> None:
    config.loss.min_snr_gamma = 5.0


def _align(config) -> None:
    config.loss.update(weight_cap=1.0, align_lpips_weight=0.1)
