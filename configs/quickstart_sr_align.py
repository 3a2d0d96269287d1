"""Quick start, super-resolution, stage 3 of 3: the diffusion model aligned with the frozen decoder (paper 4.4).

Run: python run_train.py --config configs/quickstart_sr_align.py
After configs/quickstart_sr_diffusion.py.
Expect: about 6 minutes on 2 CPU cores (--config.train.minutes), on scikit-image's photographs.
"""

from arbiscale_jax.experiments import get_quickstart_config


def get_config():
    return get_quickstart_config("sr", "align")
