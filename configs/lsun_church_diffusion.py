"""LSUN church generation, stage 2 of 3: the latent diffusion model.

Paper: 3.1 (Eq. 4); Fig. 5.
Run: python run_train.py --config configs/lsun_church_diffusion.py
Needs: LSUN church_outdoor below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/lsun_church_decoder.
Costs: 294,966,916 parameters trained, 78,572,647 frozen; 6.2 TFLOP per step of 16 images; 6.2 GB of training state.
To fine-tune latent diffusion's U-Net of the data set: --config.init_from=MODEL --config.train.learning_rate=1e-6
  --config.train.warmup_steps=0.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("lsun_church", "diffusion")
