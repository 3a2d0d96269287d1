"""ESRGAN (Wang et al. 2018) on DIV2K.

Run: python run_train.py --config configs/baselines_esrgan_div2k.py
Needs: DIV2K below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it).
"""

from arbiscale_jax.experiments import get_comparison_config


def get_config():
    return get_comparison_config("esrgan", "div2k")
