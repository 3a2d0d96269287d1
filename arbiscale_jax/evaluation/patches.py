"""Cuts windows of full-size pictures at random places, for distances between patches (Anyres-GAN, Chai et al. 2022).

A network that sees 224 or 299 pixels is blind to the detail of a larger picture, which it sees reduced. Windows at the
picture's own scale show that detail.
"""

from collections.abc import Sequence

import numpy as np

PATCHES = 4  # windows per picture


def places(number: int, size: tuple[int, int], side: int) -> np.ndarray:
    """Returns (top, left) of the windows of picture `number` of (height, width) `size`, int [PATCHES, 2].

    They are uniform and depend on the arguments alone.
    """
    rng = np.random.default_rng([number, *size, side])
    return np.stack([rng.integers(length - side + 1, size=PATCHES) for length in size], axis=1)


def cut_patches(images: np.ndarray, numbers: Sequence[int], side: int) -> np.ndarray:
    """Returns the windows of pictures.

    Args:
      images: uint8 [b, H, W, 3], with sides of at least `side`.
      numbers: the number of each picture; a shorter list leaves the last pictures at the top left.
      side: the side of a window in pixels.

    Returns:
      uint8 [PATCHES, b, side, side, 3].
    """
    out = np.empty((PATCHES, len(images), side, side, 3), np.uint8)
    for i, image in enumerate(images):
        found = places(numbers[i], image.shape[:2], side) if i < len(numbers) else np.zeros((PATCHES, 2), int)
        for k, (top, left) in enumerate(found):
            out[k, i] = image[top : top + side, left : left + side]
    return out
