"""The discriminator's part in the first stage and in alignment: both players' losses and the weight that balances them.

The recipe of the LDM auto-encoders (Esser et al. 2021, Eq. 7; Rombach et al. 2022, appendix G). Their two optimizers
take turns on a batch; here both updates come from one gradient at the weights before the step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from arbiscale_jax import models
from arbiscale_jax.errors import UserError

from . import stage as s

DELTA = 1e-4  # added to the adversarial gradient's norm


class Rendering(NamedTuple):
    """The generator's forward pass, in the pieces that the balance needs."""

    loss: jax.Array  # [], without the adversary
    metrics: dict
    x_hat: jax.Array  # [b p p 3]
    x: jax.Array  # the truth
    last: jax.Array  # the last layer's kernel
    render: Callable  # last -> x_hat; everything before the last layer held fixed
    rec_loss: Callable  # x_hat -> [], the reconstruction's part of `loss`


def discriminator_loss(real, fake):
    """Hinge loss of logits on true and rendered images, of any shape -> []."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def generator_loss(fake):
    """Minus the mean logit on rendered images -> []."""
    return -jnp.mean(fake)


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


def _play(net, loss, disc, x_hat, x, adv_weight: float, score: Callable, balance: Callable) -> tuple:
    """Lets the discriminator `disc` judge renders x_hat and truths x [b p p 3].

    Args: adv_weight, of the generator's loss; score, logits [b h w] -> that loss []; balance, the loss as a function of
      x_hat -> the weight [] that loss.adaptive_weight asks for.
    Returns: the generator's weighted loss [], the discriminator's [], metrics.
    """

    def adv_loss(x_hat):
        return score(net.apply({"params": jax.lax.stop_gradient(disc)}, x_hat))

    g = adv_loss(x_hat)
    ratio = jax.lax.stop_gradient(balance(adv_loss)) if loss.adaptive_weight else jnp.float32(1)
    judged = net.apply({"params": disc}, jnp.concatenate([x, jax.lax.stop_gradient(x_hat)]))
    real, fake = jnp.split(judged, 2)
    d = discriminator_loss(real, fake)
    metrics = {"g": g, "d": d, "adaptive_weight": ratio}
    return adv_weight * ratio * g, d, {**metrics, "logits_real": jnp.mean(real), "logits_fake": jnp.mean(fake)}


def _make_critic(config, weight: str, side: int) -> tuple | None:
    """Builds the discriminator, its initialization and its optimizer, None where the field `weight` is 0.

    Args: side, of the renders in pixels.
    Raises: UserError for fields out of range, or renders smaller than the discriminator's patches allow.
    """
    loss = config.loss
    s.check_least(config, {weight: 0, "loss.disc_start": 0, "loss.disc_layers": 1, "loss.disc_ch": 1})
    s.check_least(config, {"loss.disc_learning_rate": 0, "loss.adaptive_weight_max": 0})
    if not loss[weight.split(".")[1]]:
        return None
    least = models.least_side(loss.disc_layers)
    if side < least:
        raise UserError(
            f"loss.disc_layers={loss.disc_layers} needs data.target_patch of at least {least}, got "
            f"{side}; lower the one or raise the other."
        )
    net = models.PatchDiscriminator(loss.disc_ch, loss.disc_layers, s.compute_dtype(config))
    tx = optax.adam(loss.disc_learning_rate, b1=0.5, b2=0.9)  # the betas of the LDM recipe

    def init(key):
        params = net.init(key, jnp.zeros((1, least, least, 3)))["params"]
        return {"params": params, "opt_state": tx.init(params)}

    return net, init, tx


def make_adversary(config, forward: Callable) -> s.Adversary | None:
    """Builds the first stage's adversary, None where loss.disc_weight is 0.

    Args: forward, (params, frozen, batch, key) -> Rendering.
    Raises: UserError for fields out of range, or a window smaller than the discriminator's patches allow.
    """
    loss, made = config.loss, _make_critic(config, "loss.disc_weight", config.data.target_patch)
    if made is None:
        return None
    net, init, tx = made

    def loss_fn(params, disc, frozen, batch, key):
        out = forward(params, frozen, batch, key)

        def balance(adv_loss):
            return adaptive_weight(out, adv_loss, loss.adaptive_weight_max)

        share, d, judged = _play(net, loss, disc, out.x_hat, out.x, loss.disc_weight, generator_loss, balance)
        total = out.loss + share
        return total + d, {**out.metrics, "loss": total, **judged}

    return s.Adversary(init, loss_fn, tx, loss.disc_start)


def make_path_adversary(config, side: int) -> s.Adversary | None:
    """Builds alignment's adversary, None where loss.align_disc_weight is 0.

    f_theta is frozen there, so the balance is that of the gradients at the render itself. Every example counts as the
    reconstruction of Eq. 7 does at its time. Its loss_fn is for `Path.loss_fn` to call:
    (disc, x_hat [b p p 3], x, rec_loss: x_hat -> [], weight [b]) -> (the U-Net's share [], metrics, of which d is the
    discriminator's loss).
    Args: side, of the renders in pixels.
    Raises: UserError like `make_adversary`.
    """
    loss, made = config.loss, _make_critic(config, "loss.align_disc_weight", side)
    if made is None:
        return None
    net, init, tx = made

    def loss_fn(disc, x_hat, x, rec_loss, weight):
        fixed = jax.lax.stop_gradient(x_hat)

        def score(logits):
            return -jnp.mean(weight * jnp.mean(logits, axis=(1, 2)))

        def balance(adv_loss):
            rec, adv = (jnp.linalg.norm(jax.grad(part)(fixed)) for part in (rec_loss, adv_loss))
            return _ratio(rec, adv, loss.adaptive_weight_max)

        share, _, judged = _play(net, loss, disc, x_hat, x, loss.align_disc_weight, score, balance)
        return share, judged

    return s.Adversary(init, loss_fn, tx, loss.disc_start)
