"""LSUN tower x16 super-resolution, stage 2 of 3: the latent diffusion model.

Paper: 3.1 (Eq. 4); Table 2, right.
Run: python run_train.py --config configs/lsun_tower_sr_diffusion.py
Needs: LSUN tower below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/lsun_tower_sr_first_stage.
Costs: 411,075,104 parameters trained, 78,964,899 frozen; 12.2 TFLOP per step of 16 images; 8.5 GB of training state.
To fine-tune a trained U-Net: --config.init_from=MODEL --config.train.learning_rate=1e-6
  --config.train.warmup_steps=0.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("lsun_tower_sr", "diffusion")
