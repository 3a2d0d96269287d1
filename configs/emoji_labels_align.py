"""A generator of emoji that follows prompts, stage 3 of 3: alignment with the render.

Run: python run_train.py --config configs/emoji_labels_align.py
After configs/emoji_labels_diffusion.py.
Needs data/emoji/train_256 and val_256, folders of pictures that are named STYLE__WORDS (data.root, data.val_root).
Expect: hours on 2 CPU cores (--config.train.minutes); no weights of it are bundled; a run resumes where it stopped.
On a GPU: benchmarks/gpu/emoji.py --labels trains all stages in minutes; this file's name with :gpu has its batches.
"""

from arbiscale_jax.experiments import get_labelled_config


def get_config(machine="cpu"):
    return get_labelled_config("align", machine)
