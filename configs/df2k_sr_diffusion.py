"""In-the-wild x4 super-resolution on DIV2K and Flickr2K, stage 2 of 3: the latent diffusion model.

Paper: 3.1 (Eq. 4); Table 3, D+F.
Run: python run_train.py --config configs/df2k_sr_diffusion.py
Needs: DIV2K and Flickr2K below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/df2k_sr_first_stage.
Costs: 105,411,363 parameters trained, 52,576,798 frozen; 7.9 TFLOP per step of 16 images; 2.3 GB of training state.
To fine-tune a trained U-Net: --config.init_from=MODEL --config.train.learning_rate=1e-6
  --config.train.warmup_steps=0.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("df2k_sr", "diffusion")
