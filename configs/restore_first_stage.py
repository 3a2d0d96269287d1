"""The restoring model, stage 1 of 3: a latent that gives the picture back.

Run: python run_train.py --config configs/restore_first_stage.py
Needs data/photos, a folder of pictures (several joined by commas: --config.data.root=A,B).
Expect: docs/RESULTS.md, "The restoring model"; --config.train.minutes sets the time; a run resumes where it stopped.
On a GPU: benchmarks/gpu trains all stages in minutes; this file's name followed by :gpu has its batches and windows.
"""

from arbiscale_jax.experiments import get_restoring_config


def get_config(machine="cpu"):
    return get_restoring_config("first_stage", machine)
