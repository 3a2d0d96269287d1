"""LSUN bedroom generation, stage 1 of 3: the implicit neural decoder on a frozen encoder.

Paper: 4.2; Table 1.
Run: python run_train.py --config configs/lsun_bedroom_decoder.py --config.first_stage=models/vq_f4
Needs: LSUN bedroom below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it); the encoder
  of latent diffusion's VQ-f4 in models/vq_f4:
  python -m arbiscale_jax.interop --ckpt FILE --arch lsun_bedroom --output models/vq_f4
Costs: 30,239,375 parameters trained, 22,337,423 frozen; 9.5 TFLOP per step of 8 images; 0.7 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("lsun_bedroom", "decoder")
