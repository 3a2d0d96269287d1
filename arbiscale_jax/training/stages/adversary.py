"""Computes the losses of generator and discriminator, in the first stage and in alignment, and the weight between them.

This is the recipe of the LDM auto-encoders (Esser et al. 2021, Eq. 7; Rombach et al. 2022, appendix G). There the two
optimizers take turns on a batch; here both updates come from one gradient at the weights before the step. Logits are [b
h w], one per patch or per pixel.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from arbiscale_jax import models
from arbiscale_jax.errors import UserError

from . import stage as s

DELTA = 1e-4  # added to the norm of the adversarial gradient before the division
NETS, LOSSES = ("patch", "unet"), ("hinge", "logistic")  # values of loss.disc_net and loss.disc_loss


class Rendering(NamedTuple):
    """Holds the generator's forward pass, in the parts that the weight between the losses is computed from."""

    loss: jax.Array  # scalar, the loss without the adversarial part
    metrics: dict  # the parts of the loss
    x_hat: jax.Array  # [b p p 3], the rendered images
    x: jax.Array  # [b p p 3], the true images
    last: jax.Array  # the kernel of the last layer
    render: Callable  # last -> x_hat, with everything before the last layer held fixed
    rec_loss: Callable  # x_hat -> scalar, the reconstruction's part of `loss`


def discriminator_loss(real, fake, kind: str = "hinge"):
    """Computes the hinge or the logistic loss, a scalar, of logits of any shape on true and on rendered images."""
    if kind == "logistic":
        return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def generator_loss(fake, kind: str = "hinge", axis: tuple[int, ...] | None = None):
    """Averages over `axis`, by default over all axes, the generator's loss for logits on rendered images.

    With the hinge loss it is minus the logit; with the logistic loss it is softplus(-logit), the non-saturating loss of
    Goodfellow et al. 2014.
    """
    return jnp.mean(jax.nn.softplus(-fake), axis) if kind == "logistic" else -jnp.mean(fake, axis)


def share_right(real, fake):
    """Returns the share, a scalar, of logits with the right sign, for equally many true and rendered images."""
    return 0.5 * (jnp.mean(real > 0) + jnp.mean(fake < 0))


def adaptive_weight(out: Rendering, adv_loss: Callable, most: float):
    """Computes the weight of the adversarial loss from the gradients of both losses at the last layer.

    After Esser et al. 2021, Eq. 7, it is |grad of the reconstruction loss| / (|grad of adv_loss| + 1e-4), limited to
    [0, most]. The last layer is the output layer of f_theta's MLP, of which the kernel counts and the bias does not.

    Args:
      out: the generator's forward pass.
      adv_loss: x_hat -> scalar, the generator's adversarial loss.
      most: the largest weight.

    Returns:
      The weight, a scalar.
    """
    x_hat, last = jax.lax.stop_gradient((out.x_hat, out.last))
    _, pull = jax.vjp(out.render, last)
    rec, adv = (jnp.linalg.norm(pull(jax.grad(loss)(x_hat))[0]) for loss in (out.rec_loss, adv_loss))
    return _ratio(rec, adv, most)


def _ratio(rec, adv, most: float):
    return jnp.clip(rec / (adv + DELTA), 0, most)


def _play(critic: s.Critic, loss, disc, pictures, score: Callable, balance: Callable) -> dict:
    """Lets a discriminator judge pictures, and computes the losses of both networks.

    Args:
      critic: the discriminator.
      loss: the configuration's part of that name.
      disc: the weights of the discriminator.
      pictures: the renders x_hat and the true images x, [b p p 3] each.
      score: logits [b h w] -> the generator's loss, a scalar.
      balance: the loss as a function of x_hat -> the weight that loss.adaptive_weight asks for, a scalar.

    Returns:
      Metrics, of which g is the generator's loss, adaptive_weight its weight and d the discriminator's loss.
    """
    x_hat, x = pictures

    def adv_loss(x_hat):
        return score(critic.net.apply({"params": jax.lax.stop_gradient(disc)}, x_hat))

    g = adv_loss(x_hat)
    ratio = jax.lax.stop_gradient(balance(adv_loss)) if loss.adaptive_weight else jnp.float32(1)
    judged: Any = critic.net.apply({"params": disc}, jnp.concatenate([x, jax.lax.stop_gradient(x_hat)]))
    real, fake = jnp.split(judged, 2)
    d = discriminator_loss(real, fake, critic.kind)
    metrics = {"g": g, "d": d, "right": share_right(real, fake), "adaptive_weight": ratio}
    return {**metrics, "logits_real": jnp.mean(real), "logits_fake": jnp.mean(fake)}


def make_critic(config, weight: str, side: int) -> s.Critic | None:
    """Builds the discriminator with its initialization and its optimizer, or returns None if its weight is 0.

    Args:
      config: the whole configuration.
      weight: the dotted name of the field that holds the weight of its loss.
      side: the side of the renders in pixels.

    Returns:
      The discriminator, or None.

    Raises:
      UserError: if a field is out of range, or the renders are too small for the discriminator.
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
    tx = optax.adam(loss.disc_learning_rate, b1=0.5, b2=0.9)  # the betas that the LDM auto-encoders use

    def init(key):
        params = net.init(key, jnp.zeros((1, least, least, 3)))["params"]
        return {"params": params, "opt_state": tx.init(params)}

    return s.Critic(net, init, tx, loss.disc_loss, loss.disc_start)


def _make_net(config) -> tuple:
    """Returns the network of loss.disc_net, the smallest side that it can judge, and the setting that needs it."""
    loss, dtype = config.loss, s.compute_dtype(config)
    if loss.disc_net == "unet":
        return models.UNetDiscriminator(loss.disc_ch, dtype), models.LEAST_UNET_SIDE, "loss.disc_net=unet"
    net = models.PatchDiscriminator(loss.disc_ch, loss.disc_layers, dtype)
    return net, models.least_side(loss.disc_layers), f"loss.disc_layers={loss.disc_layers}"


def first_stage_loss(critic: s.Critic, loss, disc, out: Rendering):
    """Adds the adversarial part to the loss of the first stage, weighted at the last layer of f_theta.

    Args:
      critic: the discriminator, as `make_critic` returns it.
      loss: the configuration's part of that name.
      disc: the weights of the discriminator.
      out: the generator's forward pass.

    Returns:
      The sum of the losses of generator and discriminator, a scalar.
      The metrics.
    """
    judged = _play(
        critic,
        loss,
        disc,
        (out.x_hat, out.x),
        partial(generator_loss, kind=critic.kind),
        lambda adv_loss: adaptive_weight(out, adv_loss, loss.adaptive_weight_max),
    )
    total = out.loss + loss.disc_weight * judged["adaptive_weight"] * judged["g"]
    return total + judged["d"], {**out.metrics, "loss": total, **judged}


def path_loss(critic: s.Critic, loss, disc, pictures, rec_loss: Callable, weight):
    """Computes the adversarial part of the loss of alignment, weighted at the render itself, as f_theta may be frozen.

    Every example has the weight that its reconstruction has in Eq. 7.

    Args:
      critic: the discriminator, as `make_critic` returns it.
      loss: the configuration's part of that name.
      disc: the weights of the discriminator.
      pictures: the renders x_hat and the true images x, [b p p 3] each.
      rec_loss: x_hat -> scalar, the reconstruction's part of the loss.
      weight: the weight of each example, [b].

    Returns:
      The term to add to the loss of the networks, a scalar.
      Metrics, of which d is the discriminator's loss.
    """
    fixed = jax.lax.stop_gradient(pictures[0])

    def score(logits):
        return jnp.mean(weight * generator_loss(logits, critic.kind, axis=(1, 2)))

    def balance(adv_loss):
        rec, adv = (jnp.linalg.norm(jax.grad(part)(fixed)) for part in (rec_loss, adv_loss))
        return _ratio(rec, adv, loss.adaptive_weight_max)

    judged = _play(critic, loss, disc, pictures, score, balance)
    return loss.align_disc_weight * judged["adaptive_weight"] * judged["g"], judged
