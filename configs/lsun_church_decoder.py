"""LSUN church generation, stage 1 of 3: the implicit neural decoder on a frozen encoder.

Paper: 4.2; Fig. 5.
Run: python run_train.py --config configs/lsun_church_decoder.py --config.first_stage=models/kl_f8
Needs: LSUN church_outdoor below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it); the
  encoder of latent diffusion's KL-f8 in models/kl_f8:
  python -m arbiscale_jax.interop --ckpt FILE --arch lsun_church --output models/kl_f8
Costs: 44,408,983 parameters trained, 34,163,664 frozen; 4.4 TFLOP per step of 8 images; 1.0 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("lsun_church", "decoder")
