"""The ablation of the decoder in Table 6: what auto-encoders reconstruct, with D and without it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tables_generation import real_pictures

import arbiscale_jax as aj
from arbiscale_jax.evaluation import distortion
from arbiscale_jax.evaluation.protocols import center_crop, resize
from arbiscale_jax.evaluation.statistics import mean_and_error
from arbiscale_jax.inference import to_floats

SIDE = 128  # of the pictures that E sees
TIMES = (1, 2)  # the size of the render divided by it


def crops(folder: str, num: int) -> list[np.ndarray]:
    """Cuts the central square of each picture into four, of at most 256 pixels a side: uint8 [n n 3]."""
    found = []
    for image in real_pictures(folder, num):
        n = min(TIMES[-1] * SIDE, min(image.shape[:2]) // 2)
        square = center_crop(image, (2 * n, 2 * n))
        found += [square[y : y + n, x : x + n] for y in (0, n) for x in (0, n)]
    return found


def reconstructions(run: Path, pictures: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Returns the PSNR of the renders of encoded pictures and its standard error, for each of TIMES."""
    model, scores = aj.load(run), {time: [] for time in TIMES}
    for picture in pictures:
        z = model.encode(to_floats(resize(picture, (SIDE, SIDE)))[None])
        for time in TIMES:
            size = (time * SIDE, time * SIDE)
            scores[time].append(distortion.psnr(model.render(z, size)[0], resize(picture, size)))
    return {f"{SIDE} to {time * SIDE}": list(mean_and_error(found)) for time, found in scores.items()}
