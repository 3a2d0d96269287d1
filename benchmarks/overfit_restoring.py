"""One batch of clean and damaged pictures, learned by heart by the restoring recipe with its discriminator.

A recipe whose losses fight each other, or whose networks cannot carry detail, does not get there. The batch is half
clean and half heavily damaged (LR 16, windows of 64 pixels: whole pictures at x4); U-Net of one level, 5 blocks of 96;
all losses of the recipe. Prints PSNR, LPIPS on AlexNet and the weave of both halves; writes input, render and truth.

Run: python benchmarks/overfit_restoring.py --train DIR,DIR --first-stage RUN --minutes 8 --output out/overfit_restoring
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from loss_weights import figures
from PIL import Image

from arbiscale_jax import models, storage
from arbiscale_jax.data import synthesis
from arbiscale_jax.perceptual import load_lpips, lpips
from arbiscale_jax.restoring import get_restoring_config
from arbiscale_jax.training import latent, loop, start, state
from arbiscale_jax.training import stage as s
from arbiscale_jax.training.optimizer import LearningRate, make_optimizer
from arbiscale_jax.training.step import make_train_step, stream

SIDE, HALF = 16, 4  # of the LR pictures; examples of each kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="folders of pictures, joined by commas")
    parser.add_argument("--first-stage", required=True, help="run or model with the auto-encoder")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--output", type=Path, default=Path("out/overfit_restoring"))
    args = parser.parse_args()
    config = get_restoring_config("align").unlock()
    config.model.unet.model_channels = 96
    with config.ignore_type():
        config.model.unet.channel_mult, config.model.unet.num_res_blocks = (1,), (5,)
        config.data.synthesis.variants = ((SIDE, 4 * SIDE, 4.0, 4.0, 1.0),)
    config.data.root = args.train
    config.loss.update(disc_ch=32, lpips_shift=7)
    config.lock()

    stage, nets = loop.build_stage(config), latent.build_nets(config)
    variants, settings = synthesis.from_config(config.data)
    store = jax.tree.map(jnp.asarray, synthesis.store_from_config(config.data))
    ways = (settings._replace(clean=1.0, light=0.0, heavy=0.0), settings._replace(clean=0.0, light=0.0, heavy=1.0))
    halves = [synthesis.make_batch(jax.random.key(i), store, variants[0], HALF, way) for i, way in enumerate(ways)]
    batch = {name: jnp.concatenate([half[name] for half in halves]) for name in halves[0]}

    tree = storage.read_weights(storage.locate(args.first_stage))
    given = {"first_stage": tree["first_stage"], "scale_factor": np.float32(1)}
    params, frozen = start.start_weights(stage, given, stream(0, "params"), batch)
    frozen = {**frozen, "lpips": stage.lpips}
    tx = make_optimizer(LearningRate(1e-3, 20, "cosine", 0.02), grad_clip=1.0)
    now = state.create_state(params, tx, 0.95, stage.adversary.init(stream(0, "disc")))
    step = make_train_step(stage.loss_fn, tx, stream(0, "train"), 0.95, path=stage.path, adversary=stage.adversary)
    step = step.lower(now, frozen, batch, np.float32(0)).compile()
    began, num = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * args.minutes)) < 1:
        now, metrics = step(now, frozen, batch, np.float32(share))
        num += 1
        if num % 50 == 0:
            print(num, {name: round(float(value), 4) for name, value in metrics.items()}, flush=True)

    @jax.jit
    def render(params, batch):
        c = latent.condition(nets, frozen, batch)
        noise, t = jax.random.normal(jax.random.key(3), c.shape), jnp.full(len(c), len(nets.alpha_bar) - 1)
        z = latent.estimate(nets, params["unet"], noise, t, c, strength=jnp.full(len(c), -1.0)).z_0_hat
        weights = s.first_stage_params(params, frozen)
        return s.render_window(nets.first_stage, weights, z / frozen["scale_factor"], batch)

    x_hat, x = (np.clip(np.asarray(one), -1, 1) for one in (render(now.average, batch), batch["target"]))
    enlarged = np.clip(models.interpolate(batch["lr"], x.shape[1:3], "bicubic"), -1, 1)
    distances = {"LPIPS": jax.jit(lambda a, b, net=load_lpips("alex"): lpips(net, a, b))}
    for name, rows in (("clean", np.s_[:HALF]), ("damaged", np.s_[HALF:]), ("both", np.s_[:])):
        for label, image in (("bicubic", enlarged), ("learned", x_hat), ("truth", x + 1e-4)):
            found = figures(name, image[rows], x[rows], distances)
            print(label, {key: round(value, 3) for key, value in found.items()})
    print(f"{num} steps, the discriminator right for {float(metrics['right']):.2f}")
    sheet = np.concatenate([np.concatenate(panel, axis=0) for panel in (enlarged, x_hat, x)], axis=1)
    args.output.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(((sheet + 1) * 127.5).round())).save(args.output / "sheet.png")


if __name__ == "__main__":
    main()
