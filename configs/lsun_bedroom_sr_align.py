"""LSUN bedroom x16 super-resolution, stage 3 of 3: the alignment with the frozen decoder.

Paper: 4.4 (Eq. 7-9); Table 2, right.
Run: python run_train.py --config configs/lsun_bedroom_sr_align.py
Needs: LSUN bedroom below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/lsun_bedroom_sr_diffusion.
Costs: 411,075,104 parameters trained, 78,964,899 frozen; 8.0 TFLOP per step of 8 images; 8.5 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("lsun_bedroom_sr", "align")
