"""The networks: pure Flax linen modules that know no data, configuration file or device."""

from .build import attention_levels, build_first_stage, build_unet, spatial_factor
from .first_stage import FirstStage
from .liif import Axis, axis
from .resize import interpolate
from .unet import UNet

__all__ = [
    "Axis",
    "FirstStage",
    "UNet",
    "attention_levels",
    "axis",
    "build_first_stage",
    "build_unet",
    "interpolate",
    "spatial_factor",
]
