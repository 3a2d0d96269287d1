"""Contains the networks: pure Flax linen modules that do not depend on data, configuration files or devices."""

from .build import (
    DECODER_ATTENTION,
    DECODERS,
    FIRST_STAGES,
    UNETS,
    attention_levels,
    build_first_stage,
    build_unet,
    complete,
    decoder_reach,
    has_subcells,
    predicts,
    reach,
    spatial_factor,
)
from .dense import dense_size, dense_span, interpolation
from .discriminator import LEAST_UNET_SIDE, PatchDiscriminator, UNetDiscriminator, least_side, spectral_norm
from .first_stage import FirstStage
from .layers import NORMS
from .liif import Axis, axis
from .local import LinearEncoder, LocalUNet, linear_code
from .masks import blank, masked, resize_mask
from .moments import STATISTICS, Statistics, combine, shared_moments
from .reduce import fine_span, finer_factor, reduction
from .resize import METHODS, cut_border, interpolate, reflect, reflect_border
from .unet import UNet

__all__ = [
    "DECODERS",
    "DECODER_ATTENTION",
    "FIRST_STAGES",
    "LEAST_UNET_SIDE",
    "METHODS",
    "NORMS",
    "STATISTICS",
    "UNETS",
    "Axis",
    "FirstStage",
    "LinearEncoder",
    "LocalUNet",
    "PatchDiscriminator",
    "Statistics",
    "UNet",
    "UNetDiscriminator",
    "attention_levels",
    "axis",
    "blank",
    "build_first_stage",
    "build_unet",
    "combine",
    "complete",
    "cut_border",
    "decoder_reach",
    "has_subcells",
    "dense_size",
    "dense_span",
    "fine_span",
    "finer_factor",
    "interpolate",
    "interpolation",
    "least_side",
    "linear_code",
    "masked",
    "predicts",
    "reach",
    "reduction",
    "reflect",
    "reflect_border",
    "resize_mask",
    "shared_moments",
    "spatial_factor",
    "spectral_norm",
]
