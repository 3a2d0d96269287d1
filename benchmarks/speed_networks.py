"""What speed.py measures with: clocks, counts of FLOP, a chip's peak, and the paper's networks with random weights."""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import models
from arbiscale_jax.experiments import get_experiment_config
from arbiscale_jax.experiments.arch import model_config
from arbiscale_jax.experiments.published import published
from arbiscale_jax.inference import Model
from arbiscale_jax.inference.engine import tile_side
from arbiscale_jax.inference.tiles import Side

LR = 16  # side of the input of the faces configuration in pixels, which becomes 128 at x8
DTYPES = ("float32", "tensorfloat32", "bfloat16")
PEAKS = {  # TFLOP/s of dense products, from NVIDIA's data sheets (H100 SXM, H200 SXM; without sparsity)
    "H100 80GB HBM3": {"float32": 67.0, "tensorfloat32": 495.0, "bfloat16": 989.0},
    "H200": {"float32": 67.0, "tensorfloat32": 495.0, "bfloat16": 989.0},
}


class Call(NamedTuple):
    """A compiled program of the library with its arguments, which are on the device."""

    run: Any  # one of the Networks' run_* programs
    args: tuple
    options: Mapping[str, Any] = {}

    def __call__(self):
        return self.run(*self.args, **self.options)

    def flops(self) -> float:
        return lowered_flops(self.run.lower(*self.args, **self.options))


def lowered_flops(lowered) -> float:
    """Returns XLA's count for a program before its compiler makes library calls of convolutions, which it cannot count.

    Args: lowered, the result of jax.jit(...).lower; the body of a loop counts once.
    """
    return float((lowered.cost_analysis() or {})["flops"])


def in_turns(calls: Mapping[str, Callable], repeats: int) -> dict[str, float]:
    """Times calls A/B/A/B, each after one run that compiles and warms up; returns the median of each, in seconds."""
    times = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def seconds(call: Callable, repeats: int) -> float:
    """Times one call like `in_turns`."""
    return in_turns({"": call}, repeats)[""]


def machine() -> str:
    """Names the card or the processor."""
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return f"{len(devices)} x {devices[0].device_kind}"
    name = "CPU"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def peak(dtype: str, given: float | None, side: int = 4096) -> tuple[float, str]:
    """Returns the peak in FLOP/s, and where it comes from.

    Args: dtype, one of DTYPES; given, TFLOP/s, or None for the data sheet's, or if there is none, that of a matrix
      product that is timed here; side, of its square matrices.
    """
    if given:
        return 1e12 * given, f"{given:g} TFLOP/s, as given"
    kind = jax.devices()[0].device_kind
    for name, peaks in PEAKS.items():
        if name in kind:
            return 1e12 * peaks[dtype], f"{peaks[dtype]:g} TFLOP/s (NVIDIA's data sheet: {dtype}, dense, SXM)"
    narrow = jnp.bfloat16 if dtype == "bfloat16" else jnp.float32
    x = jax.device_put(np.random.default_rng(0).standard_normal((side, side), np.float32)).astype(narrow)
    product = jax.jit(partial(jnp.matmul, precision="tensorfloat32" if dtype == "tensorfloat32" else "highest"))
    rate = 2 * side**3 / seconds(lambda: product(x, x), 3)
    return (
        rate,
        f"{rate / 1e12:.4g} TFLOP/s (measured in this run: the product of {side} x {side} matrices, {dtype})",
    )


def faces_arch(quick: bool) -> dict:
    """Returns the paper's architecture for super-resolution of faces; if `quick`, much narrower networks."""
    arch = published()["faces_sr"]
    if quick:
        arch["first_stage"].update(ch=32, ch_mult=[1, 1, 1], num_res_blocks=1, z_channels=4)
        arch["liif"].update(hidden_list=[16, 16])
        arch["unet"].update(model_channels=32, channel_mult=[1], attention_resolutions=[1], num_res_blocks=1)
        arch["unet"].update(in_channels=8, out_channels=4)
    return arch


@lru_cache(maxsize=1)
def faces_model(quick: bool, dtype: str) -> Model:
    """Makes the model of `faces_arch` with random weights, on which the speed does not depend."""
    config = get_experiment_config("faces_sr", "align").unlock()
    config.model.update(model_config(faces_arch(quick)))
    found = config.model.to_dict()
    return Model(found, random_weights(found), dtype=dtype, name="faces_sr")


def random_weights(config: Mapping) -> dict:
    """Draws weights for the `model` part of a configuration: norms are 1, biases 0, the rest preserves variance.

    The shapes come from shape evaluation, and all kernels repeat one block of numbers, so it takes a second.
    """
    net, unet, f = models.build_first_stage(config), models.build_unet(config), models.spatial_factor(config)
    key, t = jax.random.key(0), jax.ShapeDtypeStruct((1,), jnp.int32)
    x = jax.ShapeDtypeStruct((1, 4 * f, 4 * f, 3), jnp.float32)
    z = jax.ShapeDtypeStruct((1, 16, 16, config["first_stage"]["z_channels"]), jnp.float32)
    shapes = {
        "first_stage": jax.eval_shape(net.init, key, x, models.axis(4, 8), models.axis(4, 8))["params"],
        "unet": jax.eval_shape(unet.init, key, z, t, z)["params"],
    }
    return draw_weights(shapes)


def draw_weights(shapes) -> dict:
    """Draws weights of these shapes as `random_weights` does."""
    block = np.random.default_rng(0).standard_normal(2**20, np.float32)

    def draw(path, shape):
        name = path[-1].key
        if len(shape.shape) > 1:
            return np.resize(block[: shape.size] / math.sqrt(math.prod(shape.shape[:-1])), shape.shape)
        return (np.ones if name == "scale" else np.zeros)(shape.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class Inputs(NamedTuple):
    """Random arrays on the device, as the faces model's networks take them."""

    lr: Any  # b 16 16 3
    z: Any  # b 32 32 c
    t: Any  # b
    cells: Any  # names of the latent's cells, b 32 32 3


def make_inputs(model: Model, batch: int) -> Inputs:
    side = round(LR * model.config["condition"]["upsampling"]) // model.factor
    rng, channels = np.random.default_rng(0), model.config["first_stage"]["z_channels"]
    lr = rng.uniform(-1, 1, (batch, LR, LR, 3)).astype(np.float32)
    z = rng.standard_normal((batch, side, side, channels), np.float32)
    names = np.meshgrid(*(np.arange(n, dtype=np.int32) for n in z.shape[:3]), indexing="ij")
    return jax.device_put(Inputs(lr, z, np.full(batch, 500, np.int32), np.stack(names, axis=-1)))


def part_calls(model: Model, batch: int, side: int = 512) -> dict[str, Call]:
    """Returns a call of each part: E, one evaluation of the U-Net, D, and f_theta on one tile of a side x side image.

    The tile is as large as evaluation's for this batch (inference/batch.py).
    """
    networks, params, x = model.engine.networks, model.engine.params, make_inputs(model, batch)
    features = networks.run_features(params, x.z)
    tile = tile_side(batch)
    line = Side(x.z.shape[1], side, 1, tile, side).lines(0, networks.subcells, 0, features.shape[1])
    line = jax.device_put(line)
    return {
        "E": Call(networks.run_condition, (params, x.lr)),
        "U-Net, one evaluation": Call(networks.run_eps, (params, x.z, x.t, x.z)),
        "D": Call(networks.run_features, (params, x.z)),
        f"f_theta, {tile} x {tile} pixels": Call(networks.run_tile, (params, features, line, line), {"dtype": "uint8"}),
    }
