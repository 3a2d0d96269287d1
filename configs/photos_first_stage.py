"""Bundled model "photos", stage 1 of 4: the auto-encoder, with L1, LPIPS and a KL term.

Run: python run_train.py --config configs/photos_first_stage.py
Needs data/photos, a prepared set (docs/TRAINING.md, "The bundled models").
Expect: a few minutes on 2 CPU cores (--config.train.minutes; the model card has the figures); resumes where it stopped.
On a GPU: the same with this file's name followed by :gpu.
"""

from arbiscale_jax.experiments import get_bundled_config


def get_config(machine="cpu"):
    return get_bundled_config("photos", "first_stage", machine)
