"""Designs of the restoring model compared by loss at equal FLOPs spent, on one small protocol.

Protocol: pictures of --train (a twentieth held out by data.sources); examples of data/synthesis, batches of 4, made
anew for every step from one key, so that all designs see the same; L1 of the render alone; Adam, cosine; each design
trains until the compiled steps have spent --tflop. First stages rebuild clean pictures from true latents (stage
first_stage). U-Nets go through one frozen first stage in one evaluation from noise, on clean and damaged input
(stage align, D and f_theta frozen). Figures are of 24 fixed held-out examples at x4: PSNR in dB, and the weave.

Run: python benchmarks/designs.py --part first_stage --train DIR,DIR --tflop 6; then --part unet --tflop 15
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from common import markdown

from arbiscale_jax import data, storage
from arbiscale_jax.data import synthesis
from arbiscale_jax.evaluation import weave
from arbiscale_jax.restoring import get_restoring_config
from arbiscale_jax.storage import merge
from arbiscale_jax.training import latent, loop, start, state
from arbiscale_jax.training import stage as s
from arbiscale_jax.training.optimizer import LearningRate, make_optimizer
from arbiscale_jax.training.step import make_train_step, stream

FIRST_STAGES = {  # overrides of `model`
    "linear code of 16, corrected": {},
    "the same, no norm": {"first_stage.norm": "none"},
    "the same, GroupNorm": {"first_stage.norm": "group", "first_stage.num_groups": 8},
    "code of 8": {"first_stage.z_channels": 8},
    "code of 24": {"first_stage.z_channels": 24},
    "no convolutions on sub-cells": {"first_stage.subcell.convs": 0},
    "D of 4 blocks": {"first_stage.subcell.blocks": 4},
    "linear code, random start": {"random": True},
    "one feature vector per cell (the paper's layout)": {
        "first_stage.architecture": "conv",
        "first_stage.norm": "channel",
        "first_stage.mid_attention": False,
        "first_stage.ch": 32,
        "first_stage.ch_mult": (1, 2, 3),
        "liif.hidden": (64, 64, 64),
    },
}
UNETS = {
    "three levels, 128 to 224, blocks 3, 2, 2": {},
    "two levels, blocks 4, 3": {"unet.num_res_blocks": (4, 3), "unet.channel_mult": (1, 1.5)},
    "one level, 9 blocks of 128": {"unet.num_res_blocks": (9,), "unet.channel_mult": (1,)},
    "three levels, 96 to 320": {"unet.model_channels": 96, "unet.channel_mult": (1, 2, 3.3)},
    "three levels, 160 to 224, blocks 2, 1, 1": {
        "unet.model_channels": 160,
        "unet.channel_mult": (1, 1.2, 1.4),
        "unet.num_res_blocks": (2, 1, 1),
    },
    "three levels, no norm": {"unet.norm": "none"},
    "three levels, GroupNorm": {"unet.norm": "group", "unet.num_groups": 8},
}
PARTS = {"first_stage": FIRST_STAGES, "unet": UNETS}
VARIANTS = {"first_stage": (24, 64, 3.0, 5.0, 1.0), "unet": (32, 88, 3.0, 5.0, 1.0)}
BATCH, VAL, RATE, SEED = 4, 24, 5e-4, 0
CODE = {"first_stage.z_channels": 16}  # of the first stages that name no other


def make_config(part: str, train: str, overrides: dict):
    """Builds a stage's configuration: one variant of examples, L1 alone, the overrides of `model`."""
    config = get_restoring_config("first_stage" if part == "first_stage" else "align").unlock()
    with config.ignore_type():
        config.data.synthesis.variants = (VARIANTS[part],)
        config.update_from_flattened_dict({f"model.{k}": v for k, v in overrides.items() if k != "random"})
    config.data.root = train
    config.loss.update(coarse_weight=0.0, spectrum_weight=0.0, lpips_weight=0.0, align_lpips_weight=0.0)
    config.loss.update(align_disc_weight=0.0, align_decoder=False, align_true_weight=0.0)
    return config.lock()


def spend(config, given: dict, store, tflop: float, random: bool = False) -> dict:
    """Trains a stage until its compiled steps have spent `tflop`; returns all weights and what it took."""
    stage = loop.build_stage(config)
    variants, settings = synthesis.from_config(config.data)
    settings = settings._replace(damage=config.stage != "first_stage")
    batches = synthesis.batches(store, variants, settings, SEED, BATCH)
    batch = next(batches)
    params, frozen = start.start_weights(stage, given, stream(SEED, "params"), batch)
    if random:  # the linear layers start as all others do
        key = iter(jax.random.split(jax.random.key(1), 2))
        for part in ("encoder", "decoder"):
            kernel = params["first_stage"][part]["linear"]["kernel"]
            fresh = jax.random.normal(next(key), kernel.shape) / np.sqrt(kernel.shape[2])
            params["first_stage"][part]["linear"] = {"kernel": fresh, "bias": jnp.zeros(kernel.shape[3])}
    tx = make_optimizer(LearningRate(RATE, 20, "cosine", 0.02), grad_clip=1.0)
    now = state.create_state(params, tx, 0.99)
    step = make_train_step(stage.loss_fn, tx, stream(SEED, "train"), 0.99, path=stage.path)
    compiled = step.lower(now, frozen, batch, np.float32(0)).compile()
    per_step = compiled.cost_analysis()["flops"]
    num, begun = max(1, round(tflop * 1e12 / per_step)), time.monotonic()
    for i in range(num):
        now, metrics = compiled(now, frozen, batch, np.float32(i / num))
        if i % 20 == 0:
            jax.block_until_ready(metrics)
        batch = next(batches)
    weights = jax.device_get(merge(frozen, now.average))
    return {"weights": weights, "steps": num, "seconds": time.monotonic() - begun, "flops": per_step}


def val_batches(config, part: str, store) -> dict:
    """Makes the fixed held-out examples at x4, clean and heavily damaged."""
    n, patch = VARIANTS[part][:2]
    x4 = synthesis.Variant(n, patch, 4.0, 4.0, 1.0, 4 * n)
    _, settings = synthesis.from_config(config.data)
    ways = {"clean": (1.0, 0.0), "damaged": (0.0, 1.0)}
    if part == "first_stage":
        ways = {"true": (1.0, 0.0)}
    return {
        name: synthesis.make_batch(jax.random.key(99), store, x4, VAL, settings._replace(clean=a, light=0.0, heavy=b))
        for name, (a, b) in ways.items()
    }


def measure(config, part: str, weights: dict, batches: dict) -> dict:
    """Renders the held-out examples' windows; returns PSNR of each kind and the weave of the first."""
    nets, found = latent.build_nets(config), {}

    @jax.jit
    def render(weights, batch):
        frozen = {name: tree for name, tree in weights.items() if name != "unet"}
        if part == "first_stage":
            z, _ = latent.posterior(nets, frozen, batch)
        else:
            c = latent.condition(nets, frozen, batch)
            noise, t = jax.random.normal(jax.random.key(3), c.shape), jnp.full(len(c), len(nets.alpha_bar) - 1)
            told = jnp.full(len(c), -1.0)
            z = latent.estimate(nets, weights["unet"], noise, t, c, strength=told).z_0_hat / weights["scale_factor"]
        return s.render_window(nets.first_stage, weights["first_stage"], z, batch)

    for name, batch in batches.items():
        x_hat, x = (np.clip(np.asarray(one), -1, 1) for one in (render(weights, batch), batch["target"]))
        found[f"PSNR, {name}"] = float(np.mean(10 * np.log10(4 / np.mean(np.square(x_hat - x), axis=(1, 2, 3)))))
        spectra = weave.Spectra()
        for a, b in zip(x_hat, x):
            spectra.add("render", (a + 1) * 127.5, (b + 1) * 127.5)
            spectra.add("truth", (b + 1) * 127.5, (b + 1) * 127.5)
        found[f"weave, {name}"] = spectra.weaves()["render"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--train", required=True, help="folders of pictures, joined by commas")
    parser.add_argument("--tflop", type=float, default=6.0, help="spent by each design")
    parser.add_argument("--only", default="", help="designs whose names contain this")
    parser.add_argument("--first-stage", help="run or model whose auto-encoder the U-Nets share")
    args = parser.parse_args()
    base_fields = CODE
    if args.part == "unet":
        model = storage.read_config(storage.locate(args.first_stage))["model"]
        base_fields = {"first_stage.z_channels": model["first_stage"]["z_channels"]}
    base = make_config(args.part, args.train, base_fields)
    store = jax.tree.map(jnp.asarray, synthesis.store_from_config(base.data))
    val = synthesis.make_store([(data.make_source("folder", args.train, "val"), 1.0)], base.data.synthesis.tile, 4)
    batches, given, rows = val_batches(base, args.part, jax.tree.map(jnp.asarray, val)), {}, []
    if args.part == "unet":
        tree = storage.read_weights(storage.locate(args.first_stage))
        given = {"first_stage": tree["first_stage"], "scale_factor": np.float32(1)}
    for name, overrides in PARTS[args.part].items():
        if args.only not in name:
            continue
        config = make_config(args.part, args.train, base_fields | overrides)
        found = spend(config, given, store, args.tflop, "random" in overrides)
        trained = found["weights"]["first_stage" if args.part == "first_stage" else "unet"]
        size = sum(np.size(x) for x in jax.tree.leaves(trained))
        measured = measure(config, args.part, found["weights"], batches)
        cells = {"design": name, "weights": f"{size:,}", "GFLOP per step": f"{found['flops'] / 1e9:.0f}"}
        cells |= {"steps": str(found["steps"]), "seconds": f"{found['seconds']:.0f}"}
        cells |= {key: f"{value:.2f}" for key, value in measured.items()}
        rows.append(cells)
        print(cells, flush=True)
    print(markdown(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main()
