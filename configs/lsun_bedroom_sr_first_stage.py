"""LSUN bedroom x16 super-resolution, stage 1 of 3: the auto-encoder.

Paper: 4.2; Table 2, right.
Run: python run_train.py --config configs/lsun_bedroom_sr_first_stage.py
Needs: LSUN bedroom below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it).
Costs: 78,964,899 parameters trained, 0 frozen; 8.8 TFLOP per step of 8 images; 1.6 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("lsun_bedroom_sr", "first_stage")
