"""One batch of clean and damaged pictures, learned by heart by the restoring recipe with its discriminator.

A recipe whose losses fight each other, or whose networks cannot carry detail, does not get there. The batch is half
clean and half heavily damaged (LR 24, windows of 96 pixels: whole pictures at x4); U-Net of one level, 5 blocks of 96.
As in the recipe, the U-Net first learns the latents, then U-Net, D and f_theta the renders with all losses and the
discriminator. Prints PSNR, LPIPS on AlexNet and the weave of both halves; writes input, render and truth.

Run: python benchmarks/overfit_restoring.py --train DIR,DIR --first-stage RUN --minutes 18 --output DIR
"""

import argparse
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import small_runs
from PIL import Image

from arbiscale_jax import models
from arbiscale_jax.data import synthesis
from arbiscale_jax.experiments import get_restoring_config
from arbiscale_jax.training.batches import example_settings

SIDE, HALF, LATENTS = 24, 4, 0.5  # of the LR pictures; examples of each kind; share of the time for the latents


def configure(stage: str, root: str):
    """Returns a stage's configuration, with a U-Net of one level and one shape of examples."""
    config = get_restoring_config(stage).unlock()
    config.model.unet.model_channels = 96
    with config.ignore_type():
        config.model.unet.channel_mult, config.model.unet.num_res_blocks = (1,), (5,)
        config.data.synthesis.variants = ((SIDE, 4 * SIDE, 4.0, 4.0, 1.0),)
    config.data.root = root
    config.loss.update(disc_ch=32, lpips_shift=7)
    config.train.update(learning_rate=1e-3, warmup_steps=20, ema_decay=0.95)
    if stage == "diffusion":
        config.loss.sampled_times = 1.0  # T - 1 alone, where the one evaluation is made
    return config.lock()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="folders of pictures, joined by commas")
    parser.add_argument("--first-stage", required=True, help="run or model with the auto-encoder")
    parser.add_argument("--minutes", type=float, default=18.0)
    parser.add_argument("--output", type=Path, default=Path("out/overfit_restoring"))
    args = parser.parse_args()
    config = configure("align", args.train)

    store, (variants, settings) = small_runs.training_store(config), example_settings(config)
    ways = (settings._replace(clean=1.0, light=0.0, heavy=0.0), settings._replace(clean=0.0, light=0.0, heavy=1.0))
    halves = [synthesis.make_batch(jax.random.key(i), store, variants[0], HALF, way) for i, way in enumerate(ways)]
    batch = {name: jnp.concatenate([half[name] for half in halves]) for name in halves[0]}
    given = small_runs.given_first_stage(args.first_stage)
    of_latents = configure("diffusion", args.train)
    first, second = (small_runs.minutes_of(share * args.minutes) for share in (LATENTS, 1 - LATENTS))
    warm = small_runs.train(of_latents, given, itertools.repeat(batch), first)
    run = small_runs.train(config, warm.weights, itertools.repeat(batch), second)
    answers, _ = small_runs.make_renderers(config)

    x_hat, x = np.asarray(answers(run.weights, batch)), np.asarray(batch["target"])
    enlarged = np.clip(models.interpolate(batch["lr"], x.shape[1:3], "bicubic"), -1, 1)
    distances = {"LPIPS": small_runs.make_distances()["LPIPS"]}
    for name, rows in (("clean", np.s_[:HALF]), ("damaged", np.s_[HALF:]), ("both", np.s_[:])):
        for label, image in (("bicubic", enlarged), ("learned", x_hat), ("truth", x + 1e-4)):
            found = small_runs.figures(name, image[rows], x[rows], distances)
            print(label, {key: round(value, 3) for key, value in found.items()})
    print(f"{warm.steps} steps of latents, {run.steps} of renders; discriminator right for {run.metrics['right']:.2f}")
    sheet = np.concatenate([np.concatenate(panel, axis=0) for panel in (enlarged, x_hat, x)], axis=1)
    args.output.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small_runs.to_bytes(sheet)).save(args.output / "sheet.png")


if __name__ == "__main__":
    main()
