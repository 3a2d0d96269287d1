"""The restoring model, stage 3 of 3: U-Net, D and f_theta together on the render.

Run: python run_train.py --config configs/restore_align.py
After configs/restore_diffusion.py (runs/restore_diffusion); needs its pictures.
Expect: docs/RESULTS.md, "The restoring model"; --config.train.minutes sets the time; a run resumes where it stopped.
On a GPU: benchmarks/gpu trains all stages in minutes; this file's name followed by :gpu has its batches and windows.
"""

from arbiscale_jax.experiments import get_restoring_config


def get_config(machine="cpu"):
    return get_restoring_config("align", machine)
