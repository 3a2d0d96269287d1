"""Builds the configurations of the paper's experiments (5, Tables 1-4), which the files configs/NAME_STAGE.py name.

Generation starts from a pre-trained encoder that stays frozen, for which `decoder` trains D and f_theta.
Super-resolution trains its own auto-encoder in `first_stage`. Sizes, networks and noise schedules are those of
published.py, and learning rates are published as well. Rendered sizes go from a quarter of the training size to all of
it. The numbers of steps, the warm-up and the batch sizes of diffusion and align are our choice, since the paper gives
none.
"""

from typing import NamedTuple

import ml_collections

from .arch import model_config
from .base import get_base_config
from .published import published

RATE_FROM_SCRATCH, RATE_FINE_TUNING = 1e-4, 1e-6  # learning rates of the U-Net


class Experiment(NamedTuple):
    """Holds what an experiment adds to its published architecture (published.py)."""

    source: str  # the data set, see data/catalog.py
    decoder_rate: float = 5e-5  # the learning rate of the decoder or of the whole auto-encoder


EXPERIMENTS = {
    "ffhq": Experiment("ffhq", decoder_rate=5e-6),
    "lsun_bedroom": Experiment("lsun_bedroom", decoder_rate=5e-6),
    "lsun_church": Experiment("lsun_church"),
    "faces_sr": Experiment("ffhq"),
    "lsun_bedroom_sr": Experiment("lsun_bedroom"),
    "lsun_tower_sr": Experiment("lsun_tower"),
    "div2k_sr": Experiment("div2k"),
    "df2k_sr": Experiment("df2k"),
}
_WILD = ("div2k", "df2k")  # data sets of pictures that are larger than the crops and have no preferred direction


def stages(name: str) -> tuple[str, str, str]:
    """Returns the stages of an experiment in order, as the names of its configurations end."""
    return "first_stage" if published()[name]["conditional"] else "decoder", "diffusion", "align"


def get_experiment_config(name: str, stage: str) -> ml_collections.ConfigDict:
    """Returns the locked configuration of a stage of an experiment, and raises ValueError if there is no such stage."""
    if name not in EXPERIMENTS or stage not in stages(name):
        known = ", ".join(f"{one}_{stage}" for one in EXPERIMENTS for stage in stages(one))
        raise ValueError(f"The experiments are {known}, got {name}_{stage}.")
    one, arch, config = EXPERIMENTS[name], published()[name], get_base_config()
    size, lr_size = arch["inp_size"], arch["lr_size"]  # sides of the training images; no lr_size in generation
    model = model_config(arch)
    del model["condition"]["interpolation"]  # not the reference's, since our training follows the paper's text
    config.stage = "first_stage" if stage == "decoder" else stage
    config.model.update(model)
    config.loss.freeze_encoder = lr_size is None
    config.data.update(source=one.source, image_size=size, workers=4, target_max=size)
    config.data.update(center_crop=one.source not in _WILD, transpose=one.source in _WILD)
    config.data.update(target_min=size // 4, target_patch=size // 4)
    if lr_size and stage != "first_stage":
        config.data.lr_size = lr_size
    if stage == "diffusion":
        config.train.update(
            steps=500_000, batch_size=16, learning_rate=RATE_FROM_SCRATCH, warmup_steps=1000, checkpoint_every=5000
        )
    elif stage == "align":
        config.train.update(steps=20_000, batch_size=8, learning_rate=RATE_FINE_TUNING)
        config.data.update(target_min=size, target_patch=size // 2)  # windows of the picture at its own size, Eq. 7
    else:
        config.train.update(steps=200_000, batch_size=8, learning_rate=one.decoder_rate, checkpoint_every=5000)
    config.train.val_every = config.train.checkpoint_every
    return config.lock()
