"""Bundled model "emoji", stage 2 of 4: unconditional diffusion on cached latents.

Run: python run_train.py --config configs/emoji_diffusion.py
After configs/emoji_first_stage.py.
Needs data/emoji, a prepared set (docs/TRAINING.md, "The bundled models").
Expect: a few minutes on 2 CPU cores (--config.train.minutes; the model card has the figures); resumes where it stopped.
On a GPU: the same with this file's name followed by :gpu.
"""

from arbiscale_jax.experiments import get_bundled_config


def get_config(machine="cpu"):
    return get_bundled_config("emoji", "diffusion", machine)
