"""Faces x8 super-resolution, stage 1 of 3: the auto-encoder.

Paper: 4.2; Table 2, left; Tables 5 and 6.
Run: python run_train.py --config configs/faces_sr_first_stage.py
Needs: Flickr-Faces-HQ below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it).
Costs: 52,996,771 parameters trained, 0 frozen; 3.4 TFLOP per step of 8 images; 1.1 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("faces_sr", "first_stage")
