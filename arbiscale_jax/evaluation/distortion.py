"""How far an upscaled picture is from the truth and from its input. Images are uint8 RGB [h, w, 3]."""

import math

import numpy as np
from skimage.metrics import structural_similarity

from .protocols import resize

SSIM_WINDOW = 11  # pixels a side of SSIM's Gaussian window
_LUMA = np.array([65.481, 128.553, 24.966]) / 255  # ITU-R BT.601, studio swing


def luma(image: np.ndarray) -> np.ndarray:
    """Computes BT.601's Y, as MATLAB's rgb2ycbcr on doubles (not rounded): [h, w, 3] -> [h, w] in [16, 235]."""
    return 16 + image.astype(np.float64) @ _LUMA


def default_border(scale: float) -> int:
    """Pixels cut off each side before PSNR and SSIM, as the SR field does: the scale, rounded up."""
    return math.ceil(scale)


def cut_border(image: np.ndarray, border: int) -> np.ndarray:
    """Cuts `border` pixels off each side."""
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, peak 255; infinite for equal images."""
    mse = np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))
    return float(10 * np.log10(255**2 / mse)) if mse else math.inf


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of [h, w] or [h, w, 3] (mean over channels), with the settings of Wang et al. 2004.

    Gaussian window of 11 x 11 with sigma 1.5, population covariance, range 255, borders of half a window left out.
    """
    return float(
        structural_similarity(
            a.astype(np.float64),
            b.astype(np.float64),
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=2 if a.ndim == 3 else None,
        )
    )


def lr_psnr(output: np.ndarray, lr: np.ndarray) -> float:
    """LR-consistency in dB: the output, reduced as the input was made (antialiased bicubic), against the input."""
    return psnr(resize(output, lr.shape[:2]), lr)


def color_shift(output: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean colour of the output less that of the truth, of 255: float64 [3] (R, G, B)."""
    return output.mean(axis=(0, 1), dtype=np.float64) - truth.mean(axis=(0, 1), dtype=np.float64)
