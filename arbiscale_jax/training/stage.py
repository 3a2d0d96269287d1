"""What a stage is to the loop, and what the stages share: encoding, the SR condition, rendering.

Trees of weights have the top-level keys first_stage (encoder, decoder, liif), unet and scale_factor; `params` are the
trained ones, `frozen` the others. Axis letters: b batch, h w latent cells, c latent channels.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from arbiscale_jax import models
from arbiscale_jax.errors import UserError
from arbiscale_jax.perceptual import MIN_SIDE, Lpips, load_lpips, lpips

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Adversary(NamedTuple):
    """A discriminator that is trained in the same step as the stage's networks."""

    init: Callable  # (key) -> {"params": random weights, "opt_state": ...}
    loss_fn: Callable  # (params, disc, frozen, batch, key) -> (sum of both players' losses [], metrics with loss);
    # with a Path, what its loss_fn calls
    tx: optax.GradientTransformation  # of the discriminator
    start: int  # steps of the loop before it joins; until then Stage.loss_fn


class Path(NamedTuple):
    """A path through noise levels: a step of the loop makes an update at each of its points."""

    updates: int
    begin: Callable  # (params, frozen, batch, key) -> its first point: arrays with a leading batch axis
    loss_fn: Callable  # (params, frozen, batch, key, point, i, disc=None) -> (loss [], (metrics, next point))


class Stage(NamedTuple):
    """A stage of training, built from a configuration alone."""

    init: Callable  # (key, batch) -> random weights of every network it uses: {"first_stage": ..., "unet": ...}
    trained: tuple[str, ...]  # paths into that tree; the rest is frozen and must come from somewhere
    loss_fn: Callable  # (params, frozen, batch, key) -> (loss [], metrics {name: []})
    eval_fn: Callable  # (params, frozen, batch, key) -> (metrics with loss, panels [b k H W 3])
    scale_factor: Callable | None = None  # (frozen, batch, key) -> [], for a fresh run that was given none
    lpips: tuple[Lpips, ...] = ()  # weights that the loop hands the losses as frozen["lpips"]; no run saves them
    adversary: Adversary | None = None
    path: Path | None = None  # replaces loss_fn in training


def compute_dtype(config):
    """Raises: UserError for a dtype that is not one of DTYPES."""
    if config.dtype not in DTYPES:
        raise UserError(f"dtype is one of {', '.join(DTYPES)}, got {config.dtype!r}.")
    return DTYPES[config.dtype]


def check_sizes(config) -> None:
    """Raises: UserError if the training crop does not fit the networks."""
    f, size = models.spatial_factor(config.model), config.data.image_size
    if size % f:
        raise UserError(f"data.image_size={size} must be a multiple of {f}, the factor of model.first_stage.ch_mult.")


def check_least(config, least: dict[str, float]) -> None:
    """Raises: UserError for the first field, by its dotted name, that is below its least value (or NaN)."""
    for name, value in least.items():
        section, field = name.split(".")
        if not config[section][field] >= value:
            raise UserError(f"{name} must be at least {value}, got {config[section][field]}.")


def smallest_window(config) -> int:
    """Returns the side of the smallest window of a target that the losses see, in pixels."""
    if not config.data.synthesis.enabled:
        return config.data.target_patch
    return min(variant[1] for variant in config.data.synthesis.variants)


def load_perceptual(config, weight: str, side: int) -> tuple[Lpips, ...]:
    """Loads the networks that loss.lpips_net names (alex, vgg, alex+vgg), none where the field `weight` is 0.

    Args: side, of the images in pixels, of which loss.lpips_shift is cut off.
    Raises: UserError if the weight is negative, the images are too small, or the package is missing.
    """
    check_least(config, {weight: 0})
    if not config["loss"][weight.split(".")[1]]:
        return ()
    loaded, side = tuple(load_lpips(net) for net in config.loss.lpips_net.split("+")), side - config.loss.lpips_shift
    for net in (weights.net for weights in loaded):
        if side < MIN_SIDE[net]:
            raise UserError(
                f"loss.lpips_net={net} needs rendered windows of at least {MIN_SIDE[net]} pixels a side, got {side}; "
                f"raise data.target_patch{', or use vgg, which takes smaller ones' if net == 'alex' else ''}."
            )
    return loaded


def perceptual_loss(nets: tuple[Lpips, ...], x_hat, x, dtype):
    """Computes the mean of LPIPS over the networks, [b]."""
    return sum(lpips(net, x_hat, x, dtype) for net in nets) / len(nets)


def init_first_stage(net, key, batch):
    """Makes E, D and f_theta's random weights; a linear code starts as the principal components of the batch."""
    cells = models.axis(1, 1)
    weights = net.init(key, batch["image"][:1], cells, cells)["params"]
    if not isinstance(net.encoder, models.LinearEncoder):
        return weights
    codes = models.linear_code(batch["image"], net.encoder.factor, net.encoder.z_channels)
    given = {part: {**weights[part], "linear": code} for part, code in zip(("encoder", "decoder"), codes)}
    return {**weights, **given}


def first_stage_params(params, frozen) -> dict:
    """Joins what of E, D and f_theta is trained and what is frozen."""
    return {**frozen.get("first_stage", {}), **params.get("first_stage", {})}


def example_keys(key, batch):
    """Derives a key an example, [b], from its place in the global batch, however that is divided."""
    index = batch["index"] if "index" in batch else jnp.arange(len(next(iter(batch.values()))))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def normal(keys, shape):
    """Draws standard normal numbers, example i from keys[i]: [b *shape]."""
    return jax.vmap(jax.random.normal, (0, None))(keys, shape)


def draw_latent(keys, mean, log_var):
    """Draws from the posterior N(mean, exp(log_var)), or returns the mean where log_var is None (no double_z)."""
    if log_var is None:
        return mean
    return mean + jnp.exp(0.5 * log_var) * normal(keys, mean.shape[1:])


def finer_factors(config) -> dict[tuple[int, int], int]:
    """Says how many times finer the windows of each of data.synthesis.variants are rendered, then reduced.

    That is what sampling does at the variant's smallest scale (model.sampling.finest). A variant is known by its sides
    of the encoder's picture and of the window, in pixels.
    """
    least, found = config.model.sampling.finest, {}
    if config.data.synthesis.enabled:
        for n, patch, low, *_ in config.data.synthesis.variants:
            image = round(n * config.model.condition.upsampling)
            cells = image // models.spatial_factor(config.model)
            found[image, patch] = models.finer_factor(least, cells, max(1, round(n * low)))
    return found


def render_window(net, weights, z, batch, finer: Mapping = MappingProxyType({})):
    """Renders the window that batch["target"] shows: unscaled z [b h w c] -> [b p p 3]; finer, see `finer_factors`."""
    return render_features(net, weights, net.apply({"params": weights}, z, method="features"), batch, finer)


def render_features(net, weights, features, batch, finer: Mapping = MappingProxyType({})):
    """Renders the window that batch["target"] shows from the features [b h w d] of a latent -> [b p p 3].

    Args: finer, see `finer_factors`; what it does not name is rendered as it is.
    """
    patch = batch["target"].shape[1]
    finer = finer.get((batch["image"].shape[1], patch), 1) if finer else 1

    def place(cells, start):  # each example has its own size and window
        def one(size, first):
            span = (size, first, patch) if finer == 1 else models.fine_span(first, patch, size, finer)
            return models.axis(cells, *span, xp=jnp)

        return jax.vmap(one)(batch["target_size"], start)

    (h, w), start = features.shape[1:3], batch["target_start"]
    rows, cols = place(h, start[:, 0]), place(w, start[:, 1])
    products = jax.default_backend() != "cpu"  # there a gather and its gradient are faster
    x = net.apply({"params": weights}, features, rows, cols, products=products, method="grid")
    if finer == 1:
        return x
    inside = models.reduction(patch, patch, 3 * patch, finer)  # of a window away from the picture's edges
    return jnp.einsum("ip,jq,bpqc->bijc", inside, inside, x, precision="highest")


def render_whole(net, weights, z, size: int):
    """Renders unscaled z [b h w c] at size x size, one example at a time to bound memory -> [b size size 3]."""
    rows, cols = (models.axis(cells * net.subcells, size) for cells in z.shape[1:3])
    return jax.lax.map(lambda one: net.apply({"params": weights}, one[None], rows, cols, method="render")[0], z)


def psnr(x_hat, x):
    """Peak signal-to-noise ratio of images over [-1, 1], in dB, mean over the batch -> []."""
    error = jnp.mean(jnp.square(jnp.clip(x_hat, -1, 1) - x), axis=(1, 2, 3))
    return jnp.mean(10 * jnp.log10(4 / jnp.maximum(error, 1e-10)))
