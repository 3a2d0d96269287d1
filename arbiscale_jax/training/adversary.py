"""The discriminator's part in the first stage and in alignment: both players' losses and the weight that balances them.

The recipe of the LDM auto-encoders (Esser et al. 2021, Eq. 7; Rombach et al. 2022, appendix G). Their two optimizers
take turns on a batch; here both updates come from one gradient at the weights before the step. Logits are [b h w], of
patches or of pixels.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from arbiscale_jax import models
from arbiscale_jax.errors import UserError

from . import stage as s

DELTA = 1e-4  # added to the adversarial gradient's norm
NETS, LOSSES = ("patch", "unet"), ("hinge", "logistic")  # loss.disc_net, loss.disc_loss


class Rendering(NamedTuple):
    """The generator's forward pass, in the pieces that the balance needs."""

    loss: jax.Array  # [], without the adversary
    metrics: dict
    x_hat: jax.Array  # [b p p 3]
    x: jax.Array  # the truth
    last: jax.Array  # the last layer's kernel
    render: Callable  # last -> x_hat; everything before the last layer held fixed
    rec_loss: Callable  # x_hat -> [], the reconstruction's part of `loss`


class Critic(NamedTuple):
    """The discriminator, how it starts and how it learns."""

    net: nn.Module
    init: Callable  # (key) -> {"params": random weights, "opt_state": ...}
    tx: optax.GradientTransformation
    kind: str  # of LOSSES


def discriminator_loss(real, fake, kind: str = "hinge"):
    """Computes the hinge or the logistic loss of logits on true and rendered images, of any shape -> []."""
    if kind == "logistic":
        return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def generator_loss(fake, kind: str = "hinge", axis: tuple[int, ...] | None = None):
    """Averages over `axis`, by default all, what logits on rendered images cost the generator.

    Minus the logit beside the hinge loss; beside the logistic one softplus(-logit), the non-saturating loss of
    Goodfellow et al. 2014.
    """
    return jnp.mean(jax.nn.softplus(-fake), axis) if kind == "logistic" else -jnp.mean(fake, axis)


def share_right(real, fake):
    """Computes the share of logits on true and rendered images, as many of each, that have the right sign -> []."""
    return 0.5 * (jnp.mean(real > 0) + jnp.mean(fake < 0))


def adaptive_weight(out: Rendering, adv_loss: Callable, most: float):
    """|grad of the reconstruction loss| / (|grad of adv_loss| + 1e-4) at the last layer, in [0, most] -> [].

    The last layer is the output layer of f_theta's MLP: the kernel (bias aside) from the last hidden layer to RGB.
    Args: adv_loss, x_hat -> [], the generator's.
    """
    x_hat, last = jax.lax.stop_gradient((out.x_hat, out.last))
    _, pull = jax.vjp(out.render, last)
    rec, adv = (jnp.linalg.norm(pull(jax.grad(loss)(x_hat))[0]) for loss in (out.rec_loss, adv_loss))
    return _ratio(rec, adv, most)


def _ratio(rec, adv, most: float):
    return jnp.clip(rec / (adv + DELTA), 0, most)


def _play(critic: Critic, loss, disc, x_hat, x, score: Callable, balance: Callable) -> dict:
    """Lets the discriminator of weights `disc` judge renders x_hat and truths x [b p p 3].

    Args: score, logits [b h w] -> the generator's loss []; balance, the loss as a function of x_hat -> the weight []
      that loss.adaptive_weight asks for.
    Returns: metrics, of which g is the generator's loss, adaptive_weight its weight and d the discriminator's loss.
    """

    def adv_loss(x_hat):
        return score(critic.net.apply({"params": jax.lax.stop_gradient(disc)}, x_hat))

    g = adv_loss(x_hat)
    ratio = jax.lax.stop_gradient(balance(adv_loss)) if loss.adaptive_weight else jnp.float32(1)
    judged = critic.net.apply({"params": disc}, jnp.concatenate([x, jax.lax.stop_gradient(x_hat)]))
    real, fake = jnp.split(judged, 2)
    d = discriminator_loss(real, fake, critic.kind)
    metrics = {"g": g, "d": d, "right": share_right(real, fake), "adaptive_weight": ratio}
    return {**metrics, "logits_real": jnp.mean(real), "logits_fake": jnp.mean(fake)}


def _make_critic(config, weight: str, side: int) -> Critic | None:
    """Builds the discriminator, its initialization and its optimizer, None where the field `weight` is 0.

    Args: side, of the renders in pixels.
    Raises: UserError for fields out of range, or renders smaller than the discriminator allows.
    """
    loss = config.loss
    s.check_least(config, {weight: 0, "loss.disc_start": 0, "loss.disc_layers": 1, "loss.disc_ch": 1})
    s.check_least(config, {"loss.disc_learning_rate": 0, "loss.adaptive_weight_max": 0})
    for field, known in (("disc_net", NETS), ("disc_loss", LOSSES)):
        if loss[field] not in known:
            raise UserError(f"loss.{field} is one of {', '.join(known)}, got {loss[field]!r}.")
    if not loss[weight.split(".")[1]]:
        return None
    net, least, asked = _make_net(config)
    if side < least:
        raise UserError(
            f"{asked} needs data.target_patch of at least {least}, got {side}; raise it or change the discriminator."
        )
    tx = optax.adam(loss.disc_learning_rate, b1=0.5, b2=0.9)  # the betas of the LDM recipe

    def init(key):
        params = net.init(key, jnp.zeros((1, least, least, 3)))["params"]
        return {"params": params, "opt_state": tx.init(params)}

    return Critic(net, init, tx, loss.disc_loss)


def _make_net(config) -> tuple:
    """Returns the network of loss.disc_net, the smallest side it can judge, the setting that asks for that side."""
    loss, dtype = config.loss, s.compute_dtype(config)
    if loss.disc_net == "unet":
        return models.UNetDiscriminator(loss.disc_ch, dtype), models.LEAST_UNET_SIDE, "loss.disc_net=unet"
    net = models.PatchDiscriminator(loss.disc_ch, loss.disc_layers, dtype)
    return net, models.least_side(loss.disc_layers), f"loss.disc_layers={loss.disc_layers}"


def make_adversary(config, forward: Callable) -> s.Adversary | None:
    """Builds the first stage's adversary, None where loss.disc_weight is 0.

    Args: forward, (params, frozen, batch, key) -> Rendering.
    Raises: UserError for fields out of range, or a window smaller than the discriminator's patches allow.
    """
    loss, critic = config.loss, _make_critic(config, "loss.disc_weight", s.smallest_window(config))
    if critic is None:
        return None

    def loss_fn(params, disc, frozen, batch, key):
        out = forward(params, frozen, batch, key)

        def balance(adv_loss):
            return adaptive_weight(out, adv_loss, loss.adaptive_weight_max)

        score = partial(generator_loss, kind=critic.kind)
        judged = _play(critic, loss, disc, out.x_hat, out.x, score, balance)
        total = out.loss + loss.disc_weight * judged["adaptive_weight"] * judged["g"]
        return total + judged["d"], {**out.metrics, "loss": total, **judged}

    return s.Adversary(critic.init, loss_fn, critic.tx, loss.disc_start)


def make_path_adversary(config, side: int) -> s.Adversary | None:
    """Builds alignment's adversary, None where loss.align_disc_weight is 0.

    f_theta is frozen there, so the balance is that of the gradients at the render itself. Every example counts as the
    reconstruction of Eq. 7 does at its time. Its loss_fn is for `Path.loss_fn` to call:
    (disc, x_hat [b p p 3], x, rec_loss: x_hat -> [], weight [b]) -> (the U-Net's share [], metrics, of which d is the
    discriminator's loss).
    Args: side, of the renders in pixels.
    Raises: UserError like `make_adversary`.
    """
    loss, critic = config.loss, _make_critic(config, "loss.align_disc_weight", side)
    if critic is None:
        return None

    def loss_fn(disc, x_hat, x, rec_loss, weight):
        fixed = jax.lax.stop_gradient(x_hat)

        def score(logits):
            return jnp.mean(weight * generator_loss(logits, critic.kind, axis=(1, 2)))

        def balance(adv_loss):
            rec, adv = (jnp.linalg.norm(jax.grad(part)(fixed)) for part in (rec_loss, adv_loss))
            return _ratio(rec, adv, loss.adaptive_weight_max)

        judged = _play(critic, loss, disc, x_hat, x, score, balance)
        return loss.align_disc_weight * judged["adaptive_weight"] * judged["g"], judged

    return s.Adversary(critic.init, loss_fn, critic.tx, loss.disc_start)
