"""LSUN church generation, stage 3 of 3: the alignment with the frozen decoder.

Paper: 4.4 (Eq. 7-9); Fig. 5.
Run: python run_train.py --config configs/lsun_church_align.py
Needs: LSUN church_outdoor below $ARBISCALE_DATA (where it is missing, a message says how to get and prepare it);
  runs/lsun_church_diffusion.
Costs: 294,966,916 parameters trained, 78,572,647 frozen; 5.0 TFLOP per step of 8 images; 6.2 GB of training state.
"""

from arbiscale_jax.experiments import get_experiment_config


def get_config():
    return get_experiment_config("lsun_church", "align")
