"""The restoring model, stage 2 of 3: diffusion of z_0 given the damaged picture.

Run: python run_train.py --config configs/restore_diffusion.py
After configs/restore_first_stage.py (runs/restore_first_stage); needs its pictures.
Expect: docs/RESULTS.md, "The restoring model"; --config.train.minutes sets the time; a run resumes where it stopped.
On a GPU: benchmarks/gpu trains all stages in minutes; this file's name followed by :gpu has its batches and windows.
"""

from arbiscale_jax.experiments import get_restoring_config


def get_config(machine="cpu"):
    return get_restoring_config("diffusion", machine)
