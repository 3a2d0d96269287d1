"""FFHQ generation, stage 3 of 3: the alignment with the frozen decoder.

Paper: 4.4 (Eq. 7-9); Fig. 4.
Run: python run_train.py --config configs/ffhq_align.py
Needs: Flickr-Faces-HQ below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/ffhq_diffusion.
Costs: 274,056,163 parameters trained, 52,576,798 frozen; 12.5 TFLOP per step of 8 images; 5.7 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("ffhq", "align")
