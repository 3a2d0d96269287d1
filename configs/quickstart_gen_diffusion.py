"""Quick start, generation, stage 2 of 3: the latent diffusion model on the frozen auto-encoder.

Run: python run_train.py --config configs/quickstart_gen_diffusion.py
After configs/quickstart_gen_first_stage.py.
Expect: about 6 minutes on 2 CPU cores (--config.train.minutes), on scikit-image's photographs.
"""

from arbiscale_jax.experiments import get_quickstart_config


def get_config():
    return get_quickstart_config("gen", "diffusion")
