"""Builds the configurations of the bundled models, which the files configs/photos_*.py and configs/emoji_*.py name."""

import ml_collections

from .base import get_base_config
from .quickstart import STAGES

NAMES = ("photos", "emoji")
DECODER = "decoder"  # the stage between diffusion and align, which trains D and f_theta further and keeps E
MACHINES = ("cpu", "gpu")


def get_bundled_config(name: str, stage: str, machine: str = "cpu") -> ml_collections.ConfigDict:
    """Returns the configuration of a stage of photos (super-resolution of real photographs) or emoji (generation).

    The bundled weights were trained on both machines; their model cards say how.

    Args:
      name: photos or emoji.
      stage: one of STAGES, or decoder.
      machine: cpu for an hour or two on two cores, or gpu for minutes, with the same networks, larger batches and
        bfloat16.

    Returns:
      The locked configuration.

    Raises:
      ValueError: if the name, stage or machine is unknown.
    """
    stages = (*STAGES, DECODER)
    if name not in NAMES or stage not in stages or machine not in MACHINES:
        known = f"{NAMES}, their stages {stages}, trained on {MACHINES}"
        raise ValueError(f"The bundled models are {known}, got {name!r}, {stage!r}, {machine!r}.")
    config = get_base_config()
    config.stage = "first_stage" if stage == DECODER else stage
    config.data.update(source="prepared", root=f"data/{name}")
    config.train.update(steps=1_000_000, batch_size=8, warmup_steps=100, ema_decay=0.999, schedule="cosine")
    config.train.update(val_every=500, checkpoint_every=250)
    config.loss.update(lpips_net="alex", lpips_weight=0.5, kl_weight=5e-4)
    if stage == DECODER:
        config.init_from = f"runs/{name}_first_stage"
        config.loss.freeze_encoder = True
    if stage == "align":
        config.first_stage = f"runs/{name}_{DECODER}"
    {"photos": _photos, "emoji": _emoji}[name](config, stage)
    if machine == "gpu":
        _gpu(config, name, stage)
    return config.lock()


def _photos(config, stage: str) -> None:
    config.model.first_stage.update(
        z_channels=6, double_z=True, ch=24, ch_mult=(1, 2), num_res_blocks=1, mid_attention=False, num_groups=1
    )
    config.model.liif.hidden = (64, 64, 64, 64)
    config.model.unet.update(model_channels=32, channel_mult=(1, 2, 3, 4), attention_rates=(), num_groups=4)
    with config.ignore_type():
        config.model.unet.num_res_blocks = (1, 2, 2, 1)
    config.model.condition.update(enabled=True, upsampling=4.0)
    config.model.sampling.update(steps=4, start=0.3, refine=1, border=4)
    config.model.sampling.update(cell_min=1.0, cell_max=1.0)  # the size at x4, where refining corrects the colours
    config.data.update(image_size=64, min_crop=0.5, transpose=True, recolor=0.5)
    config.data.update(target_min=48, target_max=128, target_patch=40)
    rates = {"first_stage": 1.5e-3, "diffusion": 1e-3, DECODER: 6e-4, "align": 4e-4}
    minutes = {"first_stage": 14.0, "diffusion": 7.0, DECODER: 9.0, "align": 88.0}
    config.train.update(learning_rate=rates[stage], minutes=minutes[stage])
    if stage == DECODER:  # up to 12 pixels per latent cell: with the first stage's 4, larger renders show the cells
        config.data.update(target_min=96, target_max=384, target_patch=48)
        config.loss.lpips_net = "vgg"
        config.train.update(warmup_steps=30, ema_decay=0.99)
    if stage in ("diffusion", "align"):
        config.data.update(image_size=96, lr_size=24, degradation="real", lr_scale_min=3.0, lr_scale_max=5.0)
        least, most = {"diffusion": (72, 192), "align": (96, 224)}[stage]
        config.data.update(target_min=least, target_max=most, target_patch=64)
        config.data.real.prob = 0.3
        config.train.batch_size = 4
    if stage == "align":
        config.loss.update(align_mode="sampling", align_steps=config.model.sampling.steps, weight_cap=1.0)
        config.loss.update(lambda_dm=0.05, align_lpips_weight=0.6, lpips_net="alex+vgg")


def _emoji(config, stage: str) -> None:
    # E sees 64 x 64 pixels and a latent has 16 x 16 cells; renders go up to 128, the pictures' own size
    config.model.first_stage.update(
        z_channels=6, double_z=True, ch=32, ch_mult=(1, 2, 3), num_res_blocks=1, mid_attention=False, num_groups=1
    )
    config.model.liif.hidden = (96, 96, 96)
    config.model.unet.update(
        model_channels=40, channel_mult=(1, 2, 4), num_res_blocks=1, attention_rates=(2, 4), num_groups=4
    )
    config.model.unet.update(num_heads=4, num_head_channels=0)
    # no border, since pictures were trained whole, with the zeros that convolutions put around them
    config.model.sampling.update(steps=50, eta=1.0, size=64, cell_min=0.25, cell_max=0.5)
    config.loss.kl_weight = 1e-3
    config.data.update(image_size=64, center_crop=True)  # the whole picture
    config.data.update(target_min=64, target_max=128, target_patch=48)
    rates = {"first_stage": 1.5e-3, "diffusion": 1e-3, DECODER: 1e-3, "align": 5e-5}
    minutes = {"first_stage": 17.0, "diffusion": 116.0, DECODER: 12.0, "align": 4.0}
    config.train.update(learning_rate=rates[stage], minutes=minutes[stage])
    if stage == "align":
        config.loss.update(weight_cap=1.0, align_lpips_weight=0.1)
    if stage == "diffusion":
        config.loss.min_snr_gamma = 5.0
        config.data.update(latent_cache="runs/emoji_latents", latent_cache_views=2)
        config.train.batch_size = 32


def _gpu(config, name: str, stage: str) -> None:
    config.dtype = "bfloat16"
    config.data.update(workers=12, cache_gib=16.0)  # enough to keep every tile decoded in every process
    config.loss.lpips_net = "alex+vgg"
    config.train.update(log_every=100, val_every=0, checkpoint_every=2000)
    minutes = {"first_stage": 3.0, "diffusion": 2.0, DECODER: 2.0, "align": 5.0}  # compilation comes on top
    if name == "photos":
        config.data.image_size = 128
        config.train.update(batch_size=32, learning_rate=6e-4 if stage == "align" else 1e-3)
        if stage == "first_stage":  # 1.5 to 10 pixels per latent cell
            config.data.update(target_min=96, target_max=640, target_patch=64)
        elif stage == DECODER:  # from 1 pixel per latent cell on, as x2 needs
            config.data.update(target_min=64, target_max=448, target_patch=64)
            config.loss.update(lpips_net="vgg", lpips_weight=0.15)
        else:
            config.data.update(lr_size=32, target_min=96, target_max=320, target_patch=80)
    else:
        minutes = {"first_stage": 5.0, "diffusion": 5.0, DECODER: 3.0, "align": 2.0}
        config.train.batch_size = 256 if stage == "diffusion" else 64
    config.train.minutes = minutes[stage]
