"""Designs of the restoring model compared by loss at equal FLOPs spent, on one small protocol.

Protocol: pictures of --train (a twentieth held out by data.sources); examples of data/synthesis, batches of 4, made
anew for every step from one key, so that all designs see the same; L1 of the render alone; Adam, cosine; each design
trains until the compiled steps have spent --tflop. First stages rebuild clean pictures from true latents (stage
first_stage). U-Nets go through one frozen first stage in one evaluation from noise, on clean and damaged input
(stage align, D and f_theta frozen). Figures are of 24 fixed held-out examples at x4: PSNR in dB, and the weave.

Run: python benchmarks/designs.py --part first_stage --train DIR,DIR --tflop 6; then --part unet --tflop 15
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import small_runs
from common import markdown

from arbiscale_jax.artifacts import storage
from arbiscale_jax.experiments import get_restoring_config

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
CODE = {"first_stage.z_channels": 16}  # of the first stages that name no other
SHARES = {  # of clean, light and heavy input
    "first_stage": {"true": (1.0, 0.0, 0.0)},
    "unet": {"clean": (1.0, 0.0, 0.0), "damaged": (0.0, 0.0, 1.0)},
}


def make_config(part: str, train: str, overrides: dict):
    """Builds a stage's configuration: one variant of examples, L1 alone, the overrides of `model`."""
    config = get_restoring_config("first_stage" if part == "first_stage" else "align").unlock()
    with config.ignore_type():
        config.data.synthesis.variants = (VARIANTS[part],)
        config.update_from_flattened_dict({f"model.{k}": v for k, v in overrides.items() if k != "random"})
    config.data.root = train
    config.loss.update(coarse_weight=0.0, spectrum_weight=0.0, lpips_weight=0.0, align_lpips_weight=0.0)
    config.loss.update(align_disc_weight=0.0, align_decoder=False, align_true_weight=0.0)
    config.train.update(batch_size=4, learning_rate=5e-4, warmup_steps=20, ema_decay=0.99)
    return config.lock()


def random_code(params: dict) -> dict:
    """Lets the linear layers start as all others do."""
    for key, part in zip(jax.random.split(jax.random.key(1), 2), ("encoder", "decoder"), strict=True):
        kernel = params["first_stage"][part]["linear"]["kernel"]
        fresh = jax.random.normal(key, kernel.shape) / np.sqrt(kernel.shape[2])
        params["first_stage"][part]["linear"] = {"kernel": fresh, "bias": jnp.zeros(kernel.shape[3])}
    return params


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
    store, batches, rows = small_runs.training_store(base), small_runs.held_out_batches(base, SHARES[args.part]), []
    given = small_runs.given_first_stage(args.first_stage) if args.part == "unet" else {}

    def spent(steps, seconds, flops):
        return steps / max(1, round(args.tflop * 1e12 / flops))

    for name, overrides in PARTS[args.part].items():
        if args.only not in name:
            continue
        config = make_config(args.part, args.train, base_fields | overrides)
        change = {"change": random_code} if "random" in overrides else {}
        found = small_runs.train(config, given, small_runs.made_batches(config, store), spent, **change)
        trained = found.weights["first_stage" if args.part == "first_stage" else "unet"]
        size = sum(np.size(x) for x in jax.tree.leaves(trained))
        cells = {"design": name, "weights": f"{size:,}", "GFLOP per step": f"{found.flops / 1e9:.0f}"}
        cells |= {"steps": str(found.steps), "seconds": f"{found.seconds:.0f}"}
        answers, rebuilt = small_runs.make_renderers(config)
        render = rebuilt if args.part == "first_stage" else answers
        for kind, batch in batches.items():
            measured = small_runs.figures(kind, render(found.weights, batch), batch["target"], {})
            cells |= {key: f"{value:.2f}" for key, value in measured.items()}
        rows.append(cells)
        print(cells, flush=True)
    print(markdown(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main()
