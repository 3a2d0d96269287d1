"""ESRGAN (Wang et al. 2018) on faces, 16 to 64 pixels.

Run: python run_train.py --config configs/baselines_esrgan_faces.py
Needs: FFHQ below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it).
"""

from arbiscale_jax.experiments import get_comparison_config


def get_config():
    return get_comparison_config("esrgan", "faces")
