"""LSUN bedroom generation, stage 2 of 3: the latent diffusion model.

Paper: 3.1 (Eq. 4); Table 1.
Run: python run_train.py --config configs/lsun_bedroom_diffusion.py
Needs: LSUN bedroom below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/lsun_bedroom_decoder.
Costs: 274,056,163 parameters trained, 52,576,798 frozen; 14.8 TFLOP per step of 16 images; 5.7 GB of training state.
To fine-tune latent diffusion's U-Net of the data set: --config.init_from=MODEL --config.train.learning_rate=1e-6
  --config.train.warmup_steps=0.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("lsun_bedroom", "diffusion")
