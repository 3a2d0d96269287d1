"""The networks: pure Flax linen modules that know no data, configuration file or device."""

from .build import attention_levels, build_first_stage, build_unet, spatial_factor
from .discriminator import PatchDiscriminator, least_side
from .first_stage import FirstStage
from .liif import Axis, axis
from .resize import cut_border, interpolate, reflect_border
from .unet import UNet

__all__ = [
    "Axis",
    "FirstStage",
    "PatchDiscriminator",
    "UNet",
    "attention_levels",
    "axis",
    "build_first_stage",
    "build_unet",
    "cut_border",
    "interpolate",
    "least_side",
    "reflect_border",
    "spatial_factor",
]
