"""Puts the rows that a model yields together to results of the caller's kind."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from arbiscale_jax.images.kinds import answers_like, like, to_picture

from .checks import check_memory, output_size, whole
from .tiles import fill


def upscale_whole(
    upscale_each: Callable,
    image: Any,
    scale: float | None,
    size: Sequence[int] | None,
    samples: int | None,
    sampling: Mapping[str, Any],
) -> Any:
    """Upscales one picture of any kind, as `Model.upscale` says.

    Args:
      upscale_each: a method like `Model.upscale_each`.
      image: as in `Model.upscale`.
      scale: likewise.
      size: likewise.
      samples: likewise.
      sampling: the options of sampling, by name.

    Returns:
      The result, or with samples the results, of the kind of the image.

    Raises:
      UserError: if the image, scale or size is impossible, or the result does not fit in memory.
    """
    pixels, num = to_picture(image).pixels, 1 if samples is None else whole(samples, "samples", 1)
    size = output_size(pixels.shape[:2], scale, size)
    check_memory((num, *size, pixels.shape[2]), pixels.dtype)
    out = np.empty((num, *size, pixels.shape[2]), pixels.dtype)
    for _, i, rows in upscale_each([pixels], [size], num, **sampling):
        fill(out[i], rows)
    return like(out[0], image) if samples is None else answers_like(out, image)
