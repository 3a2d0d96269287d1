"""Faces x8 super-resolution, stage 2 of 3: the latent diffusion model.

Paper: 3.1 (Eq. 4); Table 2, left; Tables 5 and 6.
Run: python run_train.py --config configs/faces_sr_diffusion.py
Needs: Flickr-Faces-HQ below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/faces_sr_first_stage.
Costs: 411,075,104 parameters trained, 52,996,771 frozen; 6.1 TFLOP per step of 16 images; 8.4 GB of training state.
To fine-tune a trained U-Net: --config.init_from=MODEL --config.train.learning_rate=1e-6
  --config.train.warmup_steps=0.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("faces_sr", "diffusion")
