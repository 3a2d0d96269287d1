"""Trains the generator of emoji in a GPU's minutes: first stage, diffusion, D and f_theta further, alignment; samples.

Run: python benchmarks/gpu/emoji.py --pack DIR --out $OUT --minutes 8 (benchmarks/gpu/README.md has the calls)
     python benchmarks/gpu/emoji.py --rehearse (all of it at toy size on a CPU, in under two minutes)
With --labels it trains the generator that follows prompts (configs/emoji_labels_*.py), whose pack keeps names.
A second call with the same --state goes on where the first one stopped.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import command

SHARES = {"first_stage": 0.28, "diffusion": 0.5, "decoder": 0.14, "align": 0.08}
LABELLED_SHARES = {"first_stage": 0.3, "diffusion": 0.65, "align": 0.05}
RESERVE = 30.0  # seconds for the samples
SIDE = 256  # of the packed pictures
VARIANT = (16, 48, 4.0, 16.0, 1.0)  # E sees 64 pixels, the render is compared from 64 to 256


def parts(args) -> list:
    """Builds the recipe's parts for a pack and a machine."""
    from kit import Part

    from arbiscale_jax.experiments import get_bundled_config, get_labelled_config
    from arbiscale_jax.training.label_config import with_labels

    roots, made = ",".join(map(str, sorted(args.pack.glob("emoji_*")))), []
    for name, share in (LABELLED_SHARES if args.labels else SHARES).items():
        if args.labels:
            config = get_labelled_config(name, args.machine).unlock()
        else:
            config = get_bundled_config("emoji", name, args.machine).unlock()
            config.data.synthesis.update(enabled=True, tile=SIDE, whole=True)
            with config.ignore_type():
                config.data.synthesis.variants = (VARIANT,)
        config.data.update(source="folder", root=roots, latent_cache="", val_source="folder", val_root=roots)
        if args.rehearse:
            toy(config)
        made.append(Part(name, with_labels(config.lock(), args.out), share))
    return made


def toy(config) -> None:
    """Makes a configuration small enough to rehearse on a CPU."""
    config.model.first_stage.update(ch=4, ch_mult=(1, 2, 2), z_channels=2)
    config.loss.disc_start = 0
    config.model.liif.hidden = (8, 8)
    config.model.unet.update(model_channels=8, channel_mult=(1, 2), attention_rates=(2,), num_heads=2, num_groups=4)
    config.model.sampling.steps = 3
    config.data.synthesis.tile = 64
    with config.ignore_type():
        config.data.synthesis.variants = ((16, 32, 3.0, 4.0, 1.0),)
    config.loss.lpips_net = "vgg"
    config.train.update(batch_size=2, warmup_steps=2)


def show_samples(args, model: Path) -> None:
    """Writes a grid of generated pictures."""
    import numpy as np
    from PIL import Image

    import arbiscale_jax as aj

    num, output = 4 if args.rehearse else 36, args.out / "samples.jpg"
    images = aj.load(model).generate(num=num, size=(192, 192), seed=0)
    side = int(num**0.5)
    grid = images[: side * side].reshape(side, side, 192, 192, 3).swapaxes(1, 2).reshape(side * 192, side * 192, 3)
    Image.fromarray(np.ascontiguousarray(grid)).save(output, quality=92)


if __name__ == "__main__":
    command.run(__doc__, parts, show_samples, RESERVE, labels=True)
