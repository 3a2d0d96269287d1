"""Provides photographs to try the page with, which come with scikit-image."""

import io
from functools import lru_cache
from typing import NamedTuple

from PIL import Image

from arbiscale_jax.web.failures import Missing


class Square(NamedTuple):
    """Names a square of a photograph."""

    title: str
    photograph: str  # its name in skimage.data
    left: int
    top: int
    side: int


EXAMPLES = {
    "astronaut": Square("Astronaut", "astronaut", 140, 0, 240),
    "cat": Square("Cat", "chelsea", 110, 20, 230),
    "coffee": Square("Cup of coffee", "coffee", 130, 20, 360),
    "rocket": Square("Rocket", "rocket", 230, 60, 300),
}
SIDE = 96  # pixels of an example, so that it is upscaled in a few seconds on a CPU


@lru_cache(maxsize=len(EXAMPLES))
def example(name: str) -> bytes:
    """Returns an example as a PNG file; raises Missing if there is none of that name."""
    from skimage import data  # here, since it takes long to import

    if name not in EXAMPLES:
        raise Missing(f"There is no such example; the examples are {', '.join(EXAMPLES)}.")
    _, photograph, left, top, side = EXAMPLES[name]
    photo = Image.fromarray(getattr(data, photograph)()).convert("RGB")
    small = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
