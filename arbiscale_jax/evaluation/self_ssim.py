"""Computes SelfSSIM, the agreement of one latent's renders at several sizes (ScaleParty; the paper's Table 1)."""

from collections.abc import Sequence

import numpy as np

from . import distortion
from .protocols import resize


def self_ssim(renders: Sequence[np.ndarray]) -> np.ndarray:
    """Compares renders of one latent with each other.

    Entry [i, j] is the SSIM at size i: render j is resized to the size of render i (antialiased bicubic) and compared
    with it. This reading reproduces the asymmetry of Table 1: a large render that is reduced agrees better (above the
    diagonal, .98, .99) than a small one that is enlarged (below it, .95, .96) and lacks detail.

    Args:
      renders: S arrays uint8 [H_i, W_i, 3].

    Returns:
      A float64 matrix [S, S] with 1 on the diagonal.
    """
    out = np.eye(len(renders))
    for i, target in enumerate(renders):
        for j, other in enumerate(renders):
            if i != j:
                out[i, j] = distortion.ssim(resize(other, target.shape[:2]), target)
    return out
