"""Faces x8 super-resolution, stage 3 of 3: the alignment with the frozen decoder.

Paper: 4.4 (Eq. 7-9); Table 2, left; Tables 5 and 6.
Run: python run_train.py --config configs/faces_sr_align.py
Needs: Flickr-Faces-HQ below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/faces_sr_diffusion.
Costs: 411,075,104 parameters trained, 52,996,771 frozen; 4.2 TFLOP per step of 8 images; 8.4 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("faces_sr", "align")
