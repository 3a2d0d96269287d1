"""Contains what the two latent stages share: noise prediction on frozen latents, validation and short sampling."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import diffusion, models
from arbiscale_jax.artifacts.vocabulary import vocabulary_of
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import fold_name

from . import stage as s

VAL_ROUNDS = 4  # number of times t at which each validation example is measured
VAL_STEPS = 20  # largest number of sampling steps in validation


class Nets(NamedTuple):
    """Holds the networks and numbers of a latent stage."""

    first_stage: Any  # the module of E, D and f_theta
    unet: Any  # the module of the U-Net
    alpha_bar: np.ndarray  # [T], the noise schedule
    image_size: int  # side of the training images in pixels
    interpolation: str | None  # how the LR image is enlarged; None means unconditional generation
    start: float  # where sampling starts: 0 from noise, else from the noised condition
    steps: int  # number of sampling steps in validation
    sampler: str  # sampler in validation
    predicts: str  # what the U-Net predicts: eps or z_0
    told: bool  # whether the U-Net is told how strongly the LR image is damaged
    labelled: bool  # whether the U-Net is told the labels of pictures
    label_dropout: float  # rate at which labels, and either part of them, are dropped
    upsampling: float  # factor by which the LR image is enlarged before E
    finer: dict  # how much finer windows are rendered, see stage.finer_factors


def build_nets(config) -> Nets:
    """Builds the networks of a latent stage, and raises UserError if the sizes of data and condition do not fit."""
    s.check_sizes(config)
    if not 0 <= config.loss.label_dropout < 1:
        raise UserError(f"loss.label_dropout is a rate, at least 0 and below 1, got {config.loss.label_dropout}.")
    condition, size, lr = config.model.condition, config.data.image_size, config.data.lr_size
    if condition.enabled and (lr <= 0 or lr * condition.upsampling != size):
        scale = condition.upsampling
        raise UserError(f"data.lr_size={lr} times model.condition.upsampling={scale} must be data.image_size={size}.")
    dtype, sampling = s.compute_dtype(config), config.model.sampling
    start = sampling.start if condition.enabled else 0.0
    schedule = config.model.schedule
    most = max(1, round((start or 1.0) * schedule.timesteps))
    return Nets(
        models.build_first_stage(config.model, dtype, config.train.remat),
        models.build_unet(config.model, dtype, config.train.remat),
        diffusion.make_alpha_bar(**schedule),
        size,
        condition.interpolation if condition.enabled else None,
        start,
        min(VAL_STEPS, sampling.steps, most),
        sampling.sampler if sampling.sampler != "dpmpp" else "ddim",
        models.predicts(config.model),
        config.model.unet.strength,
        vocabulary_of(models.complete(config.model)) is not None,
        config.loss.label_dropout,
        condition.upsampling,
        s.finer_factors(config),
    )


def init(nets: Nets, key, batch):
    """Makes random weights of all networks."""
    first_stage = s.init_first_stage(nets.first_stage, fold_name(key, "first_stage"), batch)
    one = {name: x[:1] for name, x in batch.items()}
    weights = {"first_stage": first_stage, "scale_factor": jnp.float32(1)}
    z_0, c = encode(nets, weights, one, fold_name(key, "z_0")), condition(nets, weights, one)
    unet = nets.unet.init(fold_name(key, "unet"), z_0, jnp.zeros(1, jnp.int32), c)["params"]
    return {"first_stage": first_stage, "unet": unet}


def posterior(nets: Nets, frozen, batch):
    """Returns mean and log-variance (None without double_z) of the image's latent, from E or from the cache."""
    if "moments" not in batch:
        return nets.first_stage.apply({"params": frozen["first_stage"]}, batch["image"], method="posterior")
    double_z = nets.first_stage.encoder.double_z
    return tuple(jnp.split(batch["moments"], 2, axis=-1)) if double_z else (batch["moments"], None)


def encode(nets: Nets, frozen, batch, key):
    """Returns the latent that diffusion sees, a posterior sample (or the mean without double_z) times scale_factor."""
    moments = posterior(nets, frozen, batch)
    return s.draw_latent(s.example_keys(key, batch), *moments) * frozen["scale_factor"]  # b h w c


def condition(nets: Nets, frozen, batch):
    """Encodes the LR image, enlarged to the HR size (paper 4.3), as [b h w c]; returns None in generation."""
    if nets.interpolation is None:
        return None
    if "condition" in batch:  # from the cache
        return batch["condition"] * frozen["scale_factor"]
    size = tuple(round(side * nets.upsampling) for side in batch["lr"].shape[1:3])
    x = models.interpolate(batch["lr"], size, nets.interpolation)
    mean, _ = nets.first_stage.apply({"params": frozen["first_stage"]}, x, method="posterior")
    return mean * frozen["scale_factor"]


def scale_factor(nets: Nets, frozen, batch, key):
    """Computes 1 / std of a batch of latents, a float32 scalar."""
    return 1 / jnp.std(encode(nets, {**frozen, "scale_factor": jnp.float32(1)}, batch, key))


class Estimate(NamedTuple):
    """Holds one prediction of the U-Net in both forms; by Eq. 1 each follows from the other."""

    z_0_hat: jax.Array  # [b h w c], the predicted clean latent
    eps_hat: jax.Array  # [b h w c], the predicted noise


def told(nets: Nets, batch, key, *, train: bool) -> dict[str, jax.Array]:
    """Returns what the U-Net is told besides z_t, the time and the condition, by its names of these arguments.

    strength, [b], is how strongly the LR image is damaged. It is -1 (unknown) for half of the examples, and for all
    examples of a batch without strengths. label, [b 1 + n], is the label of the picture; with `train` parts of it are
    dropped (see `drop_labels`), and examples of a batch without labels have that of nothing.

    Args:
      nets: the networks.
      batch: the examples.
      key: random key.
      train: whether labels are dropped.
    """
    found, b = {}, len(batch["moments"] if "moments" in batch else batch["image"])
    if nets.told and "strength" in batch:
        known = jax.vmap(jax.random.bernoulli)(s.example_keys(fold_name(key, "strength"), batch))
        found["strength"] = jnp.where(known, batch["strength"], -1.0)
    elif nets.told:
        found["strength"] = jnp.full(b, -1.0)
    if nets.labelled and "label" in batch:
        label = batch["label"].astype(jnp.int32)  # a store of latents holds float32
        keys = s.example_keys(fold_name(key, "label"), batch)
        found["label"] = drop_labels(keys, label, nets.label_dropout) if train and nets.label_dropout else label
    elif nets.labelled:
        found["label"] = jnp.zeros((b, 2), jnp.int32)
    return found


def drop_labels(keys, label, rate: float):
    """Drops labels [b 1 + n] for classifier-free guidance (Ho & Salimans 2022, Algorithm 1).

    Three independent draws, each at the same rate, drop the whole label, its style alone and its words alone, so that
    prompts of a style or of words alone are known as well.

    Args:
      keys: one random key per example, [b].
      label: numbers of the style and the words.
      rate: the rate, in [0, 1).

    Returns:
      The labels; a part that is dropped is 0.
    """
    whole, style, words = (jax.vmap(lambda key: jax.random.bernoulli(key, rate, (3,)))(keys)).T
    gone = jnp.concatenate([(whole | style)[:, None], jnp.repeat((whole | words)[:, None], label.shape[1] - 1, 1)], 1)
    return jnp.where(gone, 0, label)


def estimate(nets: Nets, unet, z_t, t, c, drop_keys=None, told: Mapping = MappingProxyType({})) -> Estimate:
    """Evaluates the U-Net with the weights `unet` at z_t [b h w c], times t [b], and c, told what `told` returns."""
    out = nets.unet.apply({"params": unet}, z_t, t, c, drop_keys, **told)
    if nets.predicts == "eps":
        return Estimate(diffusion.predict_z_0(z_t, out, t, nets.alpha_bar), out)
    return Estimate(out, diffusion.eps_from_z_0(z_t, out, t, nets.alpha_bar))


def denoising_loss(nets: Nets, out: Estimate, z_0, eps):
    """Computes L_dm, [b], the squared error of what the U-Net predicts: eps (Eq. 4) or z_0."""
    if nets.predicts == "eps":
        return diffusion.eps_loss(out.eps_hat, eps)
    return diffusion.mean_square(out.z_0_hat - z_0)


class Prediction(NamedTuple):
    """Holds one evaluation of the U-Net at z_t = q(z_0, eps, t)."""

    z_0: jax.Array  # [b h w c], the clean latent, scaled
    eps: jax.Array  # [b h w c], the noise
    z_t: jax.Array  # [b h w c], the noisy latent
    estimate: Estimate  # what the U-Net predicts
    dm: jax.Array  # [b], its loss, see `denoising_loss`


def predict(nets: Nets, params, frozen, batch, key, t, *, train: bool) -> Prediction:
    """Adds noise to the batch's latents up to times t [b] and predicts it; `train` turns dropout on."""
    z_0 = encode(nets, frozen, batch, fold_name(key, "z_0"))
    eps = s.normal(s.example_keys(fold_name(key, "eps"), batch), z_0.shape[1:])
    z_t, c = diffusion.q_sample(z_0, eps, t, nets.alpha_bar), condition(nets, frozen, batch)
    drop_keys = s.example_keys(fold_name(key, "dropout"), batch) if train else None
    out = estimate(nets, params["unet"], z_t, t, c, drop_keys, told(nets, batch, key, train=train))
    return Prediction(z_0, eps, z_t, out, denoising_loss(nets, out, z_0, eps))


def spread_times(b: int, T: int) -> np.ndarray:
    """Places VAL_ROUNDS * b times, int32 [rounds b], evenly in [0, T), so that every example meets all noise levels."""
    k = np.arange(VAL_ROUNDS * b).reshape(VAL_ROUNDS, b)
    return ((k + 0.5) * T / k.size).astype(np.int32)


def make_stage(nets: Nets, losses_at: Callable, sampled_times: float = 0.0) -> s.Stage:
    """Builds a stage that trains the U-Net at times t, uniform in [0, T), and validates at fixed times.

    Args:
      nets: the networks.
      losses_at: (params, frozen, batch, key, t [b], train=) -> {"loss": [b], other terms: [b]}.
      sampled_times: the share of the examples whose t is drawn from the times that sampling visits.

    Returns:
      The stage.
    """
    visited = diffusion.trajectory(nets.sampler, nets.steps, nets.alpha_bar, nets.start or 1.0).t

    def draw_time(key):
        t = jax.random.randint(fold_name(key, "any"), (), 0, len(nets.alpha_bar))
        if not sampled_times:
            return t
        one = jax.random.choice(fold_name(key, "which"), jnp.asarray(visited, jnp.int32))
        return jnp.where(jax.random.bernoulli(fold_name(key, "sampled"), sampled_times), one, t)

    def loss_fn(params, frozen, batch, key):
        t = jax.vmap(draw_time)(s.example_keys(fold_name(key, "t"), batch))
        metrics = jax.tree.map(jnp.mean, losses_at(params, frozen, batch, key, t, train=True))
        return metrics.pop("loss"), metrics

    def eval_fn(params, frozen, batch, key):
        times = jnp.asarray(spread_times(len(batch["image"]), len(nets.alpha_bar)))
        keys = jax.random.split(fold_name(key, "rounds"), VAL_ROUNDS)
        metrics = jax.lax.map(lambda now: losses_at(params, frozen, batch, now[0], now[1], train=False), (keys, times))
        metrics = jax.tree.map(jnp.mean, metrics)
        x_hat = sample_images(nets, params, frozen, batch, fold_name(key, "sample"))
        if nets.interpolation is None:
            return metrics, x_hat[:, None]
        lr = models.interpolate(batch["lr"], x_hat.shape[1:3], "nearest")
        metrics["psnr"] = s.psnr(x_hat, batch["image"])
        return metrics, jnp.stack([lr, x_hat, batch["image"]], axis=1)

    def scale(frozen, batch, key):
        return scale_factor(nets, frozen, batch, key)

    return s.Stage(lambda key, batch: init(nets, key, batch), ("unet",), loss_fn, eval_fn, scale)


def first_state(nets: Nets, c, noise, steps: int):
    """Returns the latent from which sampling starts: noise [b h w c], or the condition with noise added."""
    if not nets.start:
        return noise
    first = diffusion.first_time(steps, len(nets.alpha_bar), nets.start, nets.sampler)
    return diffusion.q_sample(c, noise, jnp.full(len(noise), first), nets.alpha_bar)


def sample_images(nets: Nets, params, frozen, batch, key):
    """Draws one latent per example in a few sampling steps and renders it at the training size, [b H W 3]."""
    c = condition(nets, frozen, batch)
    shape = jax.eval_shape(lambda: encode(nets, frozen, batch, key)).shape
    z_T = first_state(nets, c, jax.random.normal(key, shape), nets.steps)

    known = {name: x for name, x in batch.items() if name != "strength"}  # sampling judges the damage by itself
    about = told(nets, known, key, train=False)

    def eps_fn(z_t, t):
        return estimate(nets, params["unet"], z_t, t, c, told=about).eps_hat

    options: dict[str, Any] = dict(steps=nets.steps, sampler=nets.sampler, start=nets.start or 1.0)
    z_0 = diffusion.sample(eps_fn, z_T, nets.alpha_bar, **options) / frozen["scale_factor"]
    return s.render_whole(nets.first_stage, s.first_stage_params(params, frozen), z_0, nets.image_size)
