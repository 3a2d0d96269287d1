"""Provides photographs to try the page with, which come with scikit-image."""

import io
from functools import lru_cache

from PIL import Image

from arbiscale_jax.web.failures import Missing

EXAMPLES = {  # {name: (title, left, top, side of the square in scikit-image's photograph)}
    "astronaut": ("Astronaut", 140, 0, 240),
    "cat": ("Cat", 110, 20, 230),
    "coffee": ("Cup of coffee", 130, 20, 360),
    "rocket": ("Rocket", 230, 60, 300),
}
_FILES = {"astronaut": "astronaut", "cat": "chelsea", "coffee": "coffee", "rocket": "rocket"}
SIDE = 96  # pixels of an example, so that it is upscaled in a few seconds on a CPU


@lru_cache(maxsize=len(EXAMPLES))
def example(name: str) -> bytes:
    """Returns an example as a PNG file; raises Missing if there is none of that name."""
    from skimage import data  # here, since it takes long to import

    if name not in EXAMPLES:
        raise Missing(f"There is no such example; the examples are {', '.join(EXAMPLES)}.")
    _, left, top, side = EXAMPLES[name]
    photo = Image.fromarray(getattr(data, _FILES[name])()).convert("RGB")
    small = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
