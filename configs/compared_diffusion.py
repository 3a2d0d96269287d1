"""The paper's method at the budget of configs/baselines_METHOD_photos.py, stage 2 of 3: the diffusion model.

Run: python run_train.py --config configs/compared_diffusion.py
After configs/compared_first_stage.py.
Needs data/photos, a folder of pictures (several joined by commas: --config.data.root=A,B).
"""

from arbiscale_jax.experiments import get_compared_config


def get_config():
    return get_compared_config("diffusion")
