"""Computes the losses of ESRGAN (Wang et al. 2018, sections 3.2 and 3.3).

Logits C(x) are those of a discriminator before its sigmoid. They may have any shape, one per image or one per patch;
the mean over the mini-batch, E[.] in the paper, is the mean over all of them.
"""

import jax.numpy as jnp

from arbiscale_jax.perceptual import Lpips, before_activation

from .adversary import discriminator_loss

LAYER = 12  # conv5_3 of VGG-16, the last of its 13 convolutions
ADVERSARIAL_WEIGHT, PIXEL_WEIGHT = 5e-3, 1e-2  # lambda and eta (section 4.1)


def relativistic_logits(own, other):
    """Computes C(x) - E[C(x')], the logit that x is more realistic than the images x' of the other kind on average.

    Its sigmoid is D_Ra of section 3.2, the relativistic average discriminator of Jolicoeur-Martineau 2018.

    Args:
      own: logits C(x) of any shape.
      other: logits C(x') of any shape.

    Returns:
      The relativistic logits, shaped like `own`.
    """
    return own - jnp.mean(other)


def relativistic_discriminator_loss(real, fake):
    """Computes L_D^Ra of section 3.2 (Eq. 1), the loss of the discriminator.

    It is -E[log D_Ra(x_r, x_f)] - E[log(1 - D_Ra(x_f, x_r))]. At equal logits it is 2 log 2.

    Args:
      real: logits on true images, of any shape.
      fake: logits on generated images, of any shape.

    Returns:
      The loss, a scalar.
    """
    return discriminator_loss(relativistic_logits(real, fake), relativistic_logits(fake, real), "logistic")


def relativistic_generator_loss(real, fake):
    """Computes L_G^Ra of section 3.2 (Eq. 2), the adversarial loss of the generator.

    It is -E[log(1 - D_Ra(x_r, x_f))] - E[log D_Ra(x_f, x_r)], the loss of the discriminator with the two kinds
    exchanged. At equal logits it is 2 log 2.

    Args:
      real: logits on true images, of any shape.
      fake: logits on generated images, of any shape.

    Returns:
      The loss, a scalar.
    """
    return relativistic_discriminator_loss(fake, real)


def perceptual_loss(weights: Lpips, x_hat, x, dtype=jnp.float32):
    """Computes L_percep, the mean absolute difference of VGG features before the activation (section 3.3).

    The paper takes conv5_4 of VGG-19. Here it is conv5_3 of VGG-16, likewise the last convolution of the network,
    because those are the weights that `load_lpips` reads.

    Args:
      weights: the network vgg of `load_lpips`.
      x_hat: generated images [b h w 3] in [-1, 1].
      x: true images of the same shape and range.
      dtype: the type in which the convolutions compute; the difference is taken in float32.

    Returns:
      The losses [b].

    Raises:
      UserError: if the images are below 16 pixels per side.
      ValueError: if the network is not vgg.
    """
    a, b = (before_activation(weights, y, LAYER, dtype).astype(jnp.float32) for y in (x_hat, x))
    return jnp.mean(jnp.abs(a - b), axis=(1, 2, 3))


def pixel_loss(x_hat, x):
    """Computes L_1, the mean absolute error of images on the scale [0, 1] for which the paper's eta is meant.

    Args:
      x_hat: generated images [b h w 3] in [-1, 1].
      x: true images of the same shape and range.

    Returns:
      The losses [b].
    """
    return jnp.mean(jnp.abs(x_hat - x), axis=(1, 2, 3)) / 2


def generator_objective(
    perceptual,
    adversarial,
    pixel,
    adversarial_weight: float = ADVERSARIAL_WEIGHT,
    pixel_weight: float = PIXEL_WEIGHT,
):
    """Computes the loss of the generator, L_percep + lambda L_G^Ra + eta L_1 (section 3.3, Eq. 3).

    Args:
      perceptual: the loss of `perceptual_loss`, a scalar or [b].
      adversarial: the loss of `relativistic_generator_loss`, a scalar.
      pixel: the loss of `pixel_loss`, shaped like `perceptual`.
      adversarial_weight: lambda, 5e-3 in section 4.1.
      pixel_weight: eta, 1e-2 in section 4.1.

    Returns:
      The loss, shaped like `perceptual`.
    """
    return perceptual + adversarial_weight * adversarial + pixel_weight * pixel
