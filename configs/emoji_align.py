"""Bundled model "emoji", stage 4 of 4: alignment at random times.

Run: python run_train.py --config configs/emoji_align.py
After configs/emoji_diffusion.py and configs/emoji_decoder.py (runs/emoji_decoder).
Needs data/emoji, a prepared set (docs/TRAINING.md, "The bundled models").
Expect: a few minutes on 2 CPU cores (--config.train.minutes; the model card has the figures); resumes where it stopped.
On a GPU: the same with this file's name followed by :gpu.
"""

from arbiscale_jax.experiments import get_bundled_config


def get_config(machine="cpu"):
    return get_bundled_config("emoji", "align", machine)
