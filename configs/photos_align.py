"""Bundled model "photos", stage 4 of 4: alignment along the path that sampling takes.

Run: python run_train.py --config configs/photos_align.py
After configs/photos_diffusion.py and configs/photos_decoder.py (runs/photos_decoder).
Needs data/photos, a prepared set (docs/TRAINING.md, "The bundled models").
Expect: an hour and a half on 2 CPU cores (--config.train.minutes; figures in the model card); resumes where it stopped.
On a GPU: the same with this file's name followed by :gpu.
"""

from arbiscale_jax.experiments import get_bundled_config


def get_config(machine="cpu"):
    return get_bundled_config("photos", "align", machine)
