"""ESRGAN (Wang et al. 2018) on real photographs, at the budget of 30 CPU minutes that all methods get.

Run: python run_train.py --config configs/baselines_esrgan_photos.py
Needs data/photos, a folder of pictures (several joined by commas: --config.data.root=A,B).
"""

from arbiscale_jax.experiments import get_comparison_config


def get_config():
    return get_comparison_config("esrgan", "photos")
