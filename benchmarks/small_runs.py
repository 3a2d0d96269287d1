"""What the comparisons of restoring models in the small share: training, held-out examples, renders, figures."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import data
from arbiscale_jax.artifacts import storage
from arbiscale_jax.data import synthesis
from arbiscale_jax.evaluation import weave
from arbiscale_jax.perceptual import load_lpips, lpips
from arbiscale_jax.training import start
from arbiscale_jax.training.batches import example_settings
from arbiscale_jax.training.begin import state_maker
from arbiscale_jax.training.optimizer import optimizer_from_config
from arbiscale_jax.training.stages import build_stage, latent
from arbiscale_jax.training.stages import stage as s
from arbiscale_jax.training.step import make_train_step, stream

VAL = 24  # held-out examples


class Trained(NamedTuple):
    """What a small run leaves."""

    weights: dict
    steps: int
    seconds: float
    flops: float  # of a step
    metrics: dict  # means over the last 20 steps


def training_store(config):
    """Puts the training pictures on the device."""
    return jax.tree.map(jnp.asarray, synthesis.store_from_config(config.data))


def given_first_stage(run: str) -> dict:
    """Reads the auto-encoder of a run or model, for U-Nets to start from."""
    tree = storage.read_weights(storage.locate(run))
    return {"first_stage": tree["first_stage"], "scale_factor": np.float32(1)}


def made_batches(config, store):
    """Iterates over the training examples of a stage."""
    variants, settings = example_settings(config)
    return synthesis.batches(store, variants, settings, config.seed, config.train.batch_size)


def train(config, given: dict, batches, share_of: Callable, change: Callable = lambda params: params) -> Trained:
    """Trains a stage from the weights `given` until its share is 1.

    Args: batches, an iterator; share_of, (steps, seconds, FLOPs of a step) -> share of the training done; change, of
      the params that training starts from.
    """
    stage, batch = build_stage(config), next(batches)
    params, frozen = start.start_weights(stage, given, stream(config.seed, "params"), batch)
    frozen = {**frozen, "lpips": stage.lpips} if stage.lpips else frozen
    optimizer = optimizer_from_config(config.train)
    now = state_maker(stage, optimizer, config.seed)(change(params))
    step = make_train_step(stage, optimizer, stream(config.seed, "train"), adversarial=stage.critic is not None)
    step = step.lower(now, frozen, batch, np.float32(0)).compile()
    flops, began, num, kept = step.cost_analysis()["flops"], time.monotonic(), 0, []
    while (share := share_of(num, time.monotonic() - began, flops)) < 1:
        now, metrics = step(now, frozen, batch, np.float32(share))
        kept, num, batch = [*kept[-19:], jax.device_get(metrics)], num + 1, next(batches)
    seconds = time.monotonic() - began
    means = {name: float(np.mean([one[name] for one in kept])) for name in kept[0]}
    frozen = {name: tree for name, tree in frozen.items() if name != "lpips"}
    return Trained(jax.device_get(storage.merge(frozen, now.average)), num, seconds, flops, means)


def minutes_of(minutes: float):
    """Returns train's share of a run by the clock."""
    return lambda steps, seconds, flops: seconds / (60 * minutes)


def held_out_batches(config, shares: Mapping[str, tuple[float, float, float]]) -> dict:
    """Makes the fixed examples of held-out pictures at x4, one batch for each kind of input.

    Args: config, whose first variant has the LR side and the window; shares, name -> those of clean, light and heavy.
    """
    n, patch = config.data.synthesis.variants[0][:2]
    source = data.make_source("folder", config.data.root, "val")
    store = jax.tree.map(jnp.asarray, synthesis.make_store([(source, 1.0)], config.data.synthesis.tile, 4))
    x4, (_, settings) = synthesis.Variant(n, patch, 4.0, 4.0, 1.0, 4 * n), example_settings(config)

    def make(clean, light, heavy):
        own = settings._replace(damage=True, clean=clean, light=light, heavy=heavy)
        return synthesis.make_batch(jax.random.key(99), store, x4, VAL, own)

    return {name: make(*three) for name, three in shares.items()}


def make_renderers(config) -> tuple[Callable, Callable]:
    """Compiles (weights, batch) -> the windows' renders [b p p 3] in [-1, 1].

    Returns: of the answers after one evaluation from noise, the damage unknown; of the true latents.
    """
    nets = latent.build_nets(config)

    def render(weights, z, batch):
        return jnp.clip(s.render_window(nets.first_stage, weights["first_stage"], z, batch), -1, 1)

    def answers(weights, batch):
        c = latent.condition(nets, weights, batch)
        noise, t = jax.random.normal(jax.random.key(3), c.shape), jnp.full(len(c), len(nets.alpha_bar) - 1)
        out = latent.estimate(nets, weights["unet"], noise, t, c, told={"strength": jnp.full(len(c), -1.0)})
        return render(weights, out.z_0_hat / weights["scale_factor"], batch)

    def rebuilt(weights, batch):
        return render(weights, latent.posterior(nets, weights, batch)[0], batch)

    return jax.jit(answers), jax.jit(rebuilt)


def make_distances() -> dict[str, Callable]:
    """Compiles LPIPS on AlexNet and on VGG16: name -> (x_hat, x) -> [b]."""
    nets = {"LPIPS": load_lpips("alex"), "LPIPS-VGG": load_lpips("vgg")}
    return {name: jax.jit(lambda a, b, net=net: lpips(net, a, b)) for name, net in nets.items()}


def psnr(x_hat, x) -> float:
    """Mean PSNR of renders [b p p 3] in [-1, 1], in dB."""
    return float(s.psnr(x_hat, x))


def weave_of(x_hat, x) -> float:
    """Weave of renders [b p p 3] in [-1, 1] against their truths, all together."""
    spectra = weave.Spectra()
    for a, b in zip(np.asarray(x_hat), np.asarray(x), strict=True):
        spectra.add("render", (a + 1) * 127.5, (b + 1) * 127.5)
    return spectra.weaves()["render"]


def figures(name: str, x_hat, x, distances: Mapping[str, Callable]) -> dict:
    """Returns PSNR, the distances and the weave of renders, each under "NAME, figure"."""
    found = {"PSNR": psnr(x_hat, x)} | {label: float(np.mean(run(x_hat, x))) for label, run in distances.items()}
    return {f"{name}, {key}": value for key, value in (found | {"weave": weave_of(x_hat, x)}).items()}


def to_bytes(x) -> np.ndarray:
    """Maps pictures in [-1, 1] to uint8."""
    return np.uint8(np.clip((np.asarray(x) + 1) * 127.5, 0, 255).round())
