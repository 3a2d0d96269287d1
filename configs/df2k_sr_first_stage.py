"""In-the-wild x4 super-resolution on DIV2K and Flickr2K, stage 1 of 3: the auto-encoder.

Paper: 4.2; Table 3, D+F.
Run: python run_train.py --config configs/df2k_sr_first_stage.py
Needs: DIV2K and Flickr2K below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it).
Costs: 52,576,798 parameters trained, 0 frozen; 8.0 TFLOP per step of 8 images; 1.1 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("df2k_sr", "first_stage")
