"""The paper's method at the budget of configs/baselines_METHOD_photos.py, stage 3 of 3: alignment (paper 4.4).

Run: python run_train.py --config configs/compared_align.py
After configs/compared_diffusion.py.
Needs data/photos, a folder of pictures (several joined by commas: --config.data.root=A,B).
"""

from arbiscale_jax.experiments import get_compared_config


def get_config():
    return get_compared_config("align")
