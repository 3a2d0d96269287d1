"""Builds the configurations of the methods with which the paper compares: configs/baselines_METHOD_DATA.py.

On `faces` and `div2k` the settings are the published ones, where the data must be brought. On `photos` they are small
ones for 30 CPU minutes, a quarter of an hour on two cores, so that methods can be compared at an equal budget. The
paper's own method at this budget is configs/compared_STAGE.py, whose three stages share it.
"""

from typing import Any

import ml_collections

from .base import get_base_config

_UNET: dict[str, Any] = dict(  # the public implementations of SR3 and IDM, 16 -> 128 pixels
    channels=64,  # channels at the finest level
    channel_mult=(1, 2, 4, 8, 8),  # channels of each level divided by `channels`
    num_res_blocks=2,  # residual blocks per level
    attention_levels=(3,),  # levels with self-attention; 0 is the finest
    num_groups=32,  # groups of GroupNorm
    dropout=0.2,  # dropout rate in the residual blocks
)
_DIFFUSION: dict[str, Any] = dict(
    scale=8.0,  # SR3: its scale; IDM: the largest in training
    timesteps=2000,  # T, number of times
    first_beta=1e-6,  # betas are linear from first_beta
    last_beta=1e-2,  # to last_beta
    steps=2000,  # evaluations of the network in sampling
    eta=1.0,  # noise of each step: 1 is ancestral sampling, 0 is DDIM
)
DEFAULTS: dict[str, dict[str, Any]] = {
    "liif": dict(  # Chen et al. 2021
        method="liif",
        encoder="edsr",  # edsr or rdn
        channels=64,  # channels of the features
        blocks=16,  # residual blocks of the encoder
        convs=8,  # for rdn: convolutions of a block
        growth=64,  # for rdn: channels that each of them adds
        hidden=(256, 256, 256, 256),  # widths of the hidden layers of the MLP
    ),
    "sr3": dict(method="sr3", **_UNET, **_DIFFUSION),  # Saharia et al. 2021
    "idm": dict(  # Gao et al. 2023
        method="idm",
        **_UNET,
        **_DIFFUSION,
        implicit_width=256,  # hidden width of the coordinate MLPs
        encoder_channels=64,  # channels of the LR encoder
        encoder_blocks=16,  # residual blocks of the LR encoder
        train_sizes=4,  # number of output sizes in training, evenly spaced up to the image size
    ),
    "esrgan": dict(  # Wang et al. 2018
        method="esrgan",
        features=64,  # channels between the blocks
        growth=32,  # channels that each convolution of a dense block appends
        blocks=23,  # residual-in-residual dense blocks
    ),
}
DATA = ("photos", "faces", "div2k")
MINUTES = 15.0  # the budget on `photos`, of two cores
SHARES = {"first_stage": 6.0, "diffusion": 6.0, "align": 3.0}  # of these minutes, for the paper's own method
_SMALL_UNET: dict[str, Any] = dict(channels=24, channel_mult=(1, 2, 3, 4), num_res_blocks=1, attention_levels=())
_SMALL_UNET |= dict(num_groups=8, dropout=0.0, timesteps=1000, first_beta=1e-4, last_beta=2e-2, steps=50)
_SMALL: dict[str, dict[str, Any]] = {  # networks for this budget
    "liif": dict(channels=32, blocks=8, hidden=(64, 64, 64)),
    "sr3": _SMALL_UNET,
    "idm": _SMALL_UNET,
    "esrgan": dict(features=32, growth=16, blocks=4),
}


def get_comparison_config(method: str, data: str) -> ml_collections.ConfigDict:
    """Returns the locked configuration of a method on a data set.

    Args:
      method: liif, sr3, idm or esrgan.
      data: one of DATA.

    Raises:
      ValueError: if the method or the data set is unknown.
    """
    if method not in DEFAULTS or data not in DATA:
        raise ValueError(f"The methods are {', '.join(DEFAULTS)} on {', '.join(DATA)}, got {method!r}, {data!r}.")
    config = get_base_config()
    config.stage = "baseline"
    scale = 8 if data == "faces" and method != "esrgan" else 4
    fields = DEFAULTS[method] | (_SMALL[method] if data == "photos" else {})
    if "scale" in fields:
        fields["scale"] = float(scale)
    config.model = ml_collections.ConfigDict({"baseline": fields})
    lr_size = {"faces": 16, "div2k": 32 if method == "esrgan" else 48, "photos": 32}[data]  # ESRGAN: 128-pixel crops
    size = lr_size * scale
    config.data.update(image_size=size, lr_size=lr_size, target_min=size, target_max=size, target_patch=lr_size)
    if method == "liif":
        config.data.target_min = lr_size  # scales U[1, 4], on faces U[1, 8]
    if data == "photos":
        config.data.update(source="folder", root="data/photos", transpose=True)
        config.train.update(steps=1_000_000, minutes=MINUTES, batch_size=8, warmup_steps=50, ema_decay=0.999)
        config.train.update(schedule="cosine", final_lr=0.02, learning_rate=5e-4, val_every=1000, checkpoint_every=500)
    else:
        config.data.update(source={"faces": "ffhq", "div2k": "div2k"}[data], workers=4)
        config.data.update(center_crop=data == "faces", transpose=data == "div2k")
        config.train.update(checkpoint_every=5000, val_every=5000)
    {"liif": _liif, "sr3": _diffusion, "idm": _diffusion, "esrgan": _esrgan}[method](config, data)
    return config.lock()


def get_compared_config(stage: str) -> ml_collections.ConfigDict:
    """Returns the locked configuration of a stage of the paper's own method, at the budget of the others on `photos`.

    As in the paper's models for real photographs, the U-Net samples one latent cell per pixel of the input. Crops have
    half the side of the other methods', so that a CPU makes enough updates.

    Args:
      stage: first_stage, diffusion or align.

    Raises:
      ValueError: if the stage is unknown.
    """
    if stage not in SHARES:
        raise ValueError(f"The stages are {', '.join(SHARES)}, got {stage!r}.")
    config = get_base_config()
    config.stage = stage
    config.model.first_stage.update(z_channels=32, double_z=True, ch=24, ch_mult=(1, 2, 2), num_res_blocks=1)
    config.model.first_stage.update(mid_attention=False, resolution=128)
    config.model.first_stage.num_groups = 1  # several groups lose the mean colour at this budget
    config.model.liif.hidden = (64, 64, 64, 64)
    config.model.unet.update(model_channels=48, channel_mult=(1, 2, 3), num_res_blocks=1, attention_rates=())
    config.model.unet.num_groups = 4
    config.model.condition.update(enabled=True, upsampling=4.0)
    config.model.sampling.update(steps=50, size=64)
    config.data.update(source="folder", root="data/photos", transpose=True, image_size=64)
    config.data.recolor = 0.5  # an encoder that saw few hues loses the others
    config.data.update(target_min=32, target_max=128, target_patch=32)  # up to twice the size that E sees
    config.train.update(steps=1_000_000, minutes=SHARES[stage], batch_size=8, warmup_steps=50, ema_decay=0.995)
    config.train.update(schedule="cosine", final_lr=0.02, val_every=1000, checkpoint_every=500)
    config.train.learning_rate = {"first_stage": 2e-3, "diffusion": 1e-3, "align": 5e-5}[stage]
    config.loss.update(lpips_net="alex", lpips_weight=0.5, kl_weight=5e-4)
    if stage != "first_stage":
        config.data.update(lr_size=16, target_min=64, target_max=64)  # the picture's own size, Eq. 7
    if stage == "align":
        config.loss.update(weight_cap=1.0, align_steps=5)  # points of a path, for the modes that follow one
    return config.lock()


def _liif(config, data: str) -> None:
    if data != "photos":  # 1,000 epochs of 1,000 batches of 16, halved every 200 epochs; here a cosine to 1 / 32
        config.train.update(steps=1_000_000, batch_size=16, learning_rate=1e-4, schedule="cosine", final_lr=1 / 32)


def _diffusion(config, data: str) -> None:
    if data != "photos":
        batch = 256 if config.model.baseline.method == "sr3" else 32
        config.train.update(steps=1_000_000, batch_size=batch, learning_rate=1e-4, ema_decay=0.9999)


def _esrgan(config, data: str) -> None:
    config.loss.update(disc_weight=5e-3, lpips_net="vgg")
    if data == "photos":
        config.loss.update(disc_start=1000, disc_ch=16)
        return
    # L1 for 1,000,000 steps at 2e-4, then 400,000 with the discriminator at 1e-4; here the rate falls by a cosine
    config.loss.update(disc_start=1_000_000, disc_ch=64, disc_learning_rate=1e-4)
    config.train.update(steps=1_400_000, batch_size=16, learning_rate=2e-4, schedule="cosine", final_lr=0.1)
