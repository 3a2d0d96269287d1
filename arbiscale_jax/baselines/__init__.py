"""Contains the methods with which the paper compares, as pure Flax modules: LIIF, SR3, IDM and ESRGAN."""

from .idm_unet import IDM, size_fraction
from .liif_sr import LiifSR
from .methods import CHOICES, DEFAULTS, DIFFUSION, build, init
from .pixel_diffusion import make_sampler, sample, training_loss
from .rrdb import SCALE, RRDBNet
from .sr3_unet import SR3UNet, upsampled
from .vgg_discriminator import VGGDiscriminator

__all__ = [
    "CHOICES",
    "DEFAULTS",
    "DIFFUSION",
    "IDM",
    "SCALE",
    "LiifSR",
    "RRDBNet",
    "SR3UNet",
    "VGGDiscriminator",
    "build",
    "init",
    "make_sampler",
    "sample",
    "size_fraction",
    "training_loss",
    "upsampled",
]
