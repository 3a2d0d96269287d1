"""Small smooth random pictures, as encoded files, and files read back."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC


def picture(seed: int, height: int = 20, width: int = 24) -> np.ndarray:
    """Returns a picture without symmetry, uint8 [h, w, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), BICUBIC))


def encoded(seed: int, suffix: str = ".png", **shape) -> bytes:
    """Returns `picture` as the bytes of a .png, .jpg or .webp file; all but .jpg are exact."""
    out = io.BytesIO()
    options = {".jpg": {"quality": 95}, ".webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(picture(seed, **shape)).save(out, {".jpg": "jpeg"}.get(suffix, suffix[1:]), **options)
    return out.getvalue()


def pixels(path: str | Path | io.BytesIO) -> np.ndarray:
    """Returns what an image file holds, [h, w] or [h, w, c], and closes it."""
    with Image.open(path) as image:
        return np.asarray(image)


def write(root: Path, names: list[str], **shape) -> None:
    """Writes picture i under the i-th name below root."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i, path.suffix, **shape))
