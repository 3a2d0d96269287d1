"""What one call of a super-resolution model computes, by shape evaluation alone.

Run: python benchmarks/model_cost.py --model photos --side 256 --scale 4; FLOPs are XLA's count.
"""

import argparse
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from arbiscale_jax import models
from arbiscale_jax.artifacts import storage


def upscale_flops(model: Mapping, side: int, scale: float) -> dict[str, float]:
    """Counts the parts of Model.upscale with its default settings on a square input.

    Args: model, the `model` part of a configuration; side, of the input in pixels; scale, of the output.
    Returns: FLOPs of E on the condition, all steps of the U-Net, D, f_theta, the rounds of refining, and the total.
    """
    net, unet, f = models.build_first_stage(model), models.build_unet(model), models.spatial_factor(model)
    cells, channels = round(side * model["condition"]["upsampling"] / f), model["first_stage"]["z_channels"]
    cells += 2 * model["sampling"].get("border", 0)
    sampling, key, t = model["sampling"], jax.random.key(0), shape(1, dtype=jnp.int32)
    x, z, small = shape(1, cells * f, cells * f, 3), shape(1, cells, cells, channels), shape(1, 16, 16, channels)
    weights = jax.eval_shape(net.init, key, shape(1, 16, 16, 3), models.axis(16 // f, 8), models.axis(16 // f, 8))
    unet_weights = jax.eval_shape(unet.init, key, small, t, small)
    features = jax.eval_shape(lambda p, z: net.apply(p, z, method="features"), weights, z)

    def f_theta(out: int) -> float:
        finer = models.finer_factor(sampling.get("finest", 0.0), cells, out)
        axis = models.axis(cells * net.subcells, out * finer)
        return flops(lambda p, x: net.apply(p, x, axis, axis, method="grid"), weights, features)

    encoder = flops(lambda p, x: net.apply(p, x, method="posterior"), weights, x)
    decoder = flops(lambda p, z: net.apply(p, z, method="features"), weights, z)
    step = flops(lambda p, z, t: unet.apply(p, z, t, z), unet_weights, z, t)
    parts = {"encoder": encoder, "unet": sampling["steps"] * step, "decoder": decoder}
    parts["liif"] = f_theta(round(side * scale))
    parts["refine"] = sampling.get("refine", 0) * (decoder + f_theta(cells * f) + encoder)
    return parts | {"total": sum(parts.values())}


def shape(*sides: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sides, dtype)


def flops(fn, *args) -> float:
    return jax.jit(fn).lower(*args).cost_analysis()["flops"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="photos", help="bundled model, run or exported folder")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--scale", type=float, default=4)
    args = parser.parse_args()
    config = storage.read_config(storage.locate(args.model))["model"]
    for name, value in upscale_flops(config, args.side, args.scale).items():
        print(f"{name:8} {value / 1e12:.3f} TFLOP, {value / args.side**2 / 1e6:.2f} MFLOP per input pixel")


if __name__ == "__main__":
    main()
