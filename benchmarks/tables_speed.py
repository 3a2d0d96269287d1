"""Table 5 of tables.py: frames per second and memory of the paper's method and of IDM, at their published sizes.

A whole IDM picture takes hours on a CPU, so a few evaluations of each network are timed and multiplied by their number.
"""

import gc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import speed_networks
from speed_networks import LR, seconds

from arbiscale_jax import baselines
from arbiscale_jax.evaluation import speed
from arbiscale_jax.experiments import get_comparison_config
from arbiscale_jax.inference import batch, memory

SCALES, OUR_STEPS, REPEATS = (8, 12, 30, 100, 200), 200, 2
LONGEST = 60.0  # seconds; an evaluation that would take longer is estimated by its number of pixels


def measure(quick: bool = False) -> dict[str, dict[str, dict]]:
    """Times both methods: {method: {scale: {"fps": ..., "memory": GiB, perhaps "estimated": True} or {"needs": GiB}}}.

    Args: quick, narrow networks and two scales: a rehearsal.
    """
    scales = SCALES[:2] if quick else SCALES
    return {"the paper's method": _ours(scales, quick), "IDM": _idm(scales, quick)}


def _ours(scales, quick: bool) -> dict[str, dict]:
    model, found = speed_networks.faces_model(quick, "float32"), {}
    calls = speed_networks.part_calls(model, 1)
    times = {name: seconds(calls[name], REPEATS) for name in ("E", "U-Net, one evaluation", "D")}
    sampling = times["E"] + OUR_STEPS * times["U-Net, one evaluation"] + times["D"]
    features = batch.decode_features(model.engine, speed_networks.make_inputs(model, 1).z)
    for scale in scales:
        speed.reset_peak()
        render = partial(batch.render_features, model.engine, features, (scale * LR, scale * LR))
        found[f"x{scale}"] = {"fps": 1 / (sampling + seconds(render, 1)), "memory": _peak()}
    return found


def _idm(scales, quick: bool) -> dict[str, dict]:
    fields = get_comparison_config("idm", "faces").model.baseline.to_dict()
    if quick:
        fields |= dict(channels=8, channel_mult=(1, 2), attention_levels=(), num_groups=4, encoder_channels=8)
    net, found = baselines.build(fields), {}
    shapes = jax.eval_shape(lambda: baselines.init(fields, jax.random.key(0)))
    params = jax.device_put(speed_networks.draw_weights(shapes))
    per_pixel = 0.0
    lr, level, fraction = jnp.zeros((1, LR, LR, 3)), jnp.ones(1), jnp.ones(1)

    def encode(params, lr, size):
        return net.apply({"params": params}, lr, size, method="encode")

    def denoise(params, x, level, c, fraction):
        return net.apply({"params": params}, x, level, c, fraction, method="denoise")

    for scale in scales:
        size = (scale * LR, scale * LR)
        gc.collect()
        x = jnp.asarray(np.random.default_rng(0).standard_normal((1, *size, 3), np.float32))
        shape = jax.eval_shape(partial(encode, size=size), params, lr)
        compiled = jax.jit(denoise).lower(params, x, level, shape, fraction).compile()
        needed = compiled.memory_analysis().temp_size_in_bytes / 2**30
        if needed > 0.9 * memory.free_memory() / 2**30:
            found[f"x{scale}"] = {"needs": needed}
            continue
        if per_pixel * x.size > LONGEST:
            fps = 1 / (fields["steps"] * per_pixel * x.size)
            found[f"x{scale}"] = {"fps": fps, "memory": needed, "estimated": True}
            continue
        speed.reset_peak()
        c = jax.jit(encode, static_argnums=2)(params, lr, size)
        step = seconds(partial(compiled, params, x, level, c, fraction), 1 if scale > 12 else REPEATS)
        found[f"x{scale}"], per_pixel = {"fps": 1 / (fields["steps"] * step), "memory": _peak()}, step / x.size
    return found


def _peak() -> float:
    """Returns the largest use of the device's memory, or on a CPU of the host's, in GiB."""
    device = speed.peak_device()
    return speed.peak_host() / 2**30 if device is None else device / 2**10
