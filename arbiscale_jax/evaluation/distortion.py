"""Measures how far an upscaled picture is from the truth and from its input; images are uint8 RGB [h, w, 3]."""

import math
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from .protocols import resize

SSIM_WINDOW = 11  # side of SSIM's Gaussian window in pixels
_LUMA = np.array([65.481, 128.553, 24.966]) / 255  # ITU-R BT.601, limited range


def luma(image: np.ndarray) -> np.ndarray:
    """Computes BT.601's Y, [h, w] in [16, 235], as MATLAB's rgb2ycbcr does for doubles, without rounding."""
    return 16 + image.astype(np.float64) @ _LUMA


def default_border(scale: float) -> int:
    """Returns the usual number of pixels to cut off each side before PSNR and SSIM: the scale, rounded up."""
    return math.ceil(scale)


def cut_border(image: np.ndarray, border: int) -> np.ndarray:
    """Cuts `border` pixels off each side."""
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the peak signal-to-noise ratio in dB, with a peak of 255; it is infinite for equal images."""
    mse = np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))
    return float(10 * np.log10(255**2 / mse)) if mse else math.inf


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the structural similarity of images [h, w] or [h, w, 3], with the settings of Wang et al. 2004.

    The Gaussian window has 11 x 11 pixels and sigma 1.5, the covariance is that of the population, the range is 255,
    and borders of half a window are left out. For RGB it is the mean over the channels.
    """
    mean: Any = structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2 if a.ndim == 3 else None,
    )
    return float(mean)


def lr_psnr(output: np.ndarray, lr: np.ndarray) -> float:
    """Computes the LR-consistency in dB: the PSNR of the reduced output (antialiased bicubic) against the input."""
    return psnr(resize(output, lr.shape[:2]), lr)


def color_shift(output: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the mean colour of the output minus that of the truth, on the scale 0..255, as float64 [3] (R, G, B)."""
    return output.mean(axis=(0, 1), dtype=np.float64) - truth.mean(axis=(0, 1), dtype=np.float64)
