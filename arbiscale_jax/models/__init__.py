"""The networks: pure Flax linen modules that know no data, configuration file or device."""

from .build import (
    attention_levels,
    build_first_stage,
    build_unet,
    complete,
    predicts,
    reach,
    spatial_factor,
)
from .discriminator import LEAST_UNET_SIDE, PatchDiscriminator, UNetDiscriminator, least_side, spectral_norm
from .first_stage import FirstStage
from .liif import Axis, axis
from .local import LinearEncoder, LocalUNet, linear_code
from .reduce import fine_span, finer_factor, reduction
from .resize import cut_border, interpolate, reflect, reflect_border
from .unet import UNet

__all__ = [
    "LEAST_UNET_SIDE",
    "Axis",
    "FirstStage",
    "LinearEncoder",
    "LocalUNet",
    "PatchDiscriminator",
    "UNet",
    "UNetDiscriminator",
    "attention_levels",
    "axis",
    "build_first_stage",
    "build_unet",
    "complete",
    "cut_border",
    "fine_span",
    "finer_factor",
    "interpolate",
    "least_side",
    "linear_code",
    "predicts",
    "reach",
    "reduction",
    "reflect",
    "reflect_border",
    "spatial_factor",
    "spectral_norm",
]
