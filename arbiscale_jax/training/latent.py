"""What the two latent stages share: noise prediction on frozen latents, validation at spread times, short sampling."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import diffusion, models
from arbiscale_jax.errors import UserError

from . import stage as s

VAL_ROUNDS = 4  # times per validation example
VAL_STEPS = 20  # of DDIM, at most


class Nets(NamedTuple):
    """The networks and numbers of a latent stage."""

    first_stage: Any
    unet: Any
    alpha_bar: np.ndarray  # [T]
    image_size: int
    interpolation: str | None  # of the SR condition; None: unconditional
    start: float  # of sampling: 0 from noise, else from the noised condition
    steps: int  # of validation's sampling
    sampler: str  # of the same
    predicts: str  # what the U-Net gives: eps or z_0
    told: bool  # whether it is told how strongly the LR image is damaged
    upsampling: float  # of the LR image, before E
    finer: dict  # see stage.finer_factors


def build_nets(config) -> Nets:
    """Raises: UserError if data and condition do not fit."""
    s.check_sizes(config)
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
        condition.upsampling,
        s.finer_factors(config),
    )


def init(nets: Nets, key, batch):
    """Makes random weights of all networks."""
    key_first, key_unet = jax.random.split(key)
    first_stage = s.init_first_stage(nets.first_stage, key_first, batch)
    one = {name: x[:1] for name, x in batch.items()}
    weights = {"first_stage": first_stage, "scale_factor": jnp.float32(1)}
    z_0, c = encode(nets, weights, one, key), condition(nets, weights, one)
    return {"first_stage": first_stage, "unet": nets.unet.init(key_unet, z_0, jnp.zeros(1, jnp.int32), c)["params"]}


def posterior(nets: Nets, frozen, batch):
    """Encodes the image, or takes what the cache holds of it: mean and log-variance (None without double_z)."""
    if "moments" not in batch:
        return nets.first_stage.apply({"params": frozen["first_stage"]}, batch["image"], method="posterior")
    double_z = nets.first_stage.encoder.double_z
    return tuple(jnp.split(batch["moments"], 2, axis=-1)) if double_z else (batch["moments"], None)


def encode(nets: Nets, frozen, batch, key):
    """Encodes the image as diffusion sees it: a posterior sample (the mean without double_z) times scale_factor."""
    moments = posterior(nets, frozen, batch)
    return s.draw_latent(s.example_keys(key, batch), *moments) * frozen["scale_factor"]  # b h w c


def condition(nets: Nets, frozen, batch):
    """Encodes the LR image, enlarged to the HR size (paper 4.3): [b h w c], or None without SR condition."""
    if nets.interpolation is None:
        return None
    if "condition" in batch:  # from the cache
        return batch["condition"] * frozen["scale_factor"]
    size = tuple(round(side * nets.upsampling) for side in batch["lr"].shape[1:3])
    x = models.interpolate(batch["lr"], size, nets.interpolation)
    mean, _ = nets.first_stage.apply({"params": frozen["first_stage"]}, x, method="posterior")
    return mean * frozen["scale_factor"]


def scale_factor(nets: Nets, frozen, batch, key):
    """1 / std of a batch of latents -> [] float32."""
    return 1 / jnp.std(encode(nets, {**frozen, "scale_factor": jnp.float32(1)}, batch, key))


class Estimate(NamedTuple):
    """One evaluation of the U-Net, in both terms; by Eq. 1 each gives the other."""

    z_0_hat: jax.Array
    eps_hat: jax.Array


def told_strength(nets: Nets, batch, key):
    """What the U-Net is told of the damage, [b]: its strength, or -1 (unknown) for half of the examples.

    None: the U-Net is told nothing. A batch without strengths has none known.
    """
    if not nets.told:
        return None
    b = len(batch["image"])
    if "strength" not in batch:
        return jnp.full(b, -1.0)
    known = jax.vmap(jax.random.bernoulli)(s.example_keys(key, batch))
    return jnp.where(known, batch["strength"], -1.0)


def estimate(nets: Nets, unet, z_t, t, c, drop_keys=None, strength=None) -> Estimate:
    """Evaluates the U-Net of weights `unet` at z_t [b h w c], times t [b] and condition c."""
    told = {} if strength is None else {"strength": strength}
    out = nets.unet.apply({"params": unet}, z_t, t, c, drop_keys, **told)
    if nets.predicts == "eps":
        return Estimate(diffusion.predict_z_0(z_t, out, t, nets.alpha_bar), out)
    return Estimate(out, diffusion.eps_from_z_0(z_t, out, t, nets.alpha_bar))


def denoising_loss(nets: Nets, out: Estimate, z_0, eps):
    """L_dm in the terms that the U-Net predicts, [b]: of eps (Eq. 4), or the squared error of z_0 itself."""
    if nets.predicts == "eps":
        return diffusion.eps_loss(out.eps_hat, eps)
    return diffusion.mean_square(out.z_0_hat - z_0)


class Prediction(NamedTuple):
    """One evaluation of the U-Net at z_t = q(z_0, eps, t)."""

    z_0: jax.Array
    eps: jax.Array
    z_t: jax.Array
    estimate: Estimate
    dm: jax.Array  # [b], see `denoising_loss`


def predict(nets: Nets, params, frozen, batch, key, t, *, train: bool) -> Prediction:
    """Noises the batch's latents to times t [b] and predicts the noise; `train` turns dropout on."""
    key_z, key_eps, key_drop = jax.random.split(key, 3)
    z_0 = encode(nets, frozen, batch, key_z)
    eps = s.normal(s.example_keys(key_eps, batch), z_0.shape[1:])
    z_t, c = diffusion.q_sample(z_0, eps, t, nets.alpha_bar), condition(nets, frozen, batch)
    drop_keys = s.example_keys(key_drop, batch) if train else None
    strength = told_strength(nets, batch, jax.random.fold_in(key, 3))
    out = estimate(nets, params["unet"], z_t, t, c, drop_keys, strength)
    return Prediction(z_0, eps, z_t, out, denoising_loss(nets, out, z_0, eps))


def spread_times(b: int, T: int) -> np.ndarray:
    """Places VAL_ROUNDS * b times evenly in [0, T), so that every example visits all parts -> int32 [rounds b]."""
    k = np.arange(VAL_ROUNDS * b).reshape(VAL_ROUNDS, b)
    return ((k + 0.5) * T / k.size).astype(np.int32)


def make_stage(nets: Nets, losses_at: Callable, sampled_times: float = 0.0) -> s.Stage:
    """Builds a stage that trains the U-Net at t uniform in [0, T) and validates at fixed times.

    Args: losses_at, (params, frozen, batch, key, t [b], train=) -> {"loss": [b], other terms: [b]}; sampled_times, the
      share of the examples whose t is one of those that sampling visits.
    """
    visited = diffusion.trajectory(nets.sampler, nets.steps, nets.alpha_bar, nets.start or 1.0).t

    def draw_time(key):
        t = jax.random.randint(key, (), 0, len(nets.alpha_bar))
        if not sampled_times:
            return t
        key_which, key_share = jax.random.split(jax.random.fold_in(key, 7))
        one = jax.random.choice(key_which, jnp.asarray(visited, jnp.int32))
        return jnp.where(jax.random.bernoulli(key_share, sampled_times), one, t)

    def loss_fn(params, frozen, batch, key):
        key_t, key_rest = jax.random.split(key)
        t = jax.vmap(draw_time)(s.example_keys(key_t, batch))
        metrics = jax.tree.map(jnp.mean, losses_at(params, frozen, batch, key_rest, t, train=True))
        return metrics.pop("loss"), metrics

    def eval_fn(params, frozen, batch, key):
        key_loss, key_sample = jax.random.split(key)
        times = jnp.asarray(spread_times(len(batch["image"]), len(nets.alpha_bar)))
        keys = jax.random.split(key_loss, VAL_ROUNDS)
        metrics = jax.lax.map(lambda now: losses_at(params, frozen, batch, now[0], now[1], train=False), (keys, times))
        metrics = jax.tree.map(jnp.mean, metrics)
        x_hat = sample_images(nets, params, frozen, batch, key_sample)
        if nets.interpolation is None:
            return metrics, x_hat[:, None]
        lr = models.interpolate(batch["lr"], x_hat.shape[1:3], "nearest")
        metrics["psnr"] = s.psnr(x_hat, batch["image"])
        return metrics, jnp.stack([lr, x_hat, batch["image"]], axis=1)

    def scale(frozen, batch, key):
        return scale_factor(nets, frozen, batch, key)

    return s.Stage(lambda key, batch: init(nets, key, batch), ("unet",), loss_fn, eval_fn, scale)


def first_state(nets: Nets, c, noise, steps: int):
    """What sampling in `steps` begins with: noise [b h w c], or where start > 0 the condition noised to its time."""
    if not nets.start:
        return noise
    first = diffusion.first_time(steps, len(nets.alpha_bar), nets.start, nets.sampler)
    return diffusion.q_sample(c, noise, jnp.full(len(noise), first), nets.alpha_bar)


def sample_images(nets: Nets, params, frozen, batch, key):
    """Draws one latent an example by a short DDIM and renders it at the training size -> [b H W 3]."""
    c = condition(nets, frozen, batch)
    shape = jax.eval_shape(lambda: encode(nets, frozen, batch, key)).shape
    z_T = first_state(nets, c, jax.random.normal(key, shape), nets.steps)

    strength = jnp.full(len(z_T), -1.0) if nets.told else None

    def eps_fn(z_t, t):
        return estimate(nets, params["unet"], z_t, t, c, strength=strength).eps_hat

    options = dict(steps=nets.steps, sampler=nets.sampler, start=nets.start or 1.0)
    z_0 = diffusion.sample(eps_fn, z_T, nets.alpha_bar, **options) / frozen["scale_factor"]
    return s.render_whole(nets.first_stage, s.first_stage_params(params, frozen), z_0, nets.image_size)
