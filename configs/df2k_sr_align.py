"""In-the-wild x4 super-resolution on DIV2K and Flickr2K, stage 3 of 3: the alignment with the frozen decoder.

Paper: 4.4 (Eq. 7-9); Table 3, D+F.
Run: python run_train.py --config configs/df2k_sr_align.py
Needs: DIV2K and Flickr2K below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/df2k_sr_diffusion.
Costs: 105,411,363 parameters trained, 52,576,798 frozen; 6.6 TFLOP per step of 8 images; 2.3 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("df2k_sr", "align")
