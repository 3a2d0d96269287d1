"""From a photograph to one training example: crop, mirror, low resolution, window of the target.

Letters: S image_size, l lr_size, p target_patch, c side of the crop in the photograph's pixels. Resizing is Pillow's
BICUBIC throughout: a = -0.5, antialiased (the kernel widens when shrinking), in 8 bits: like Matlab's
imresize, unlike PyTorch's default (a = -0.75, no antialiasing). Other ways to the LR image are in degradations.py.
"""

import numpy as np
from PIL import Image

from .degradations import BICUBIC, Shrink, resize

WEAKEST = 0.4  # gain of a channel that recolouring weakens


def example(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    image_size: int,
    lr_size: int,
    flip: bool,
    transpose: bool,
    recolor: float,
    min_crop: float,
    target_min: int,
    target_max: int,
    target_patch: int,
    center_crop: bool = False,
    shrink: Shrink | None = None,
) -> dict[str, np.ndarray]:
    """Draws an example from an image, uint8 [h, w, 3]; the arguments are the fields of config.data.

    shrink makes the LR image (degradations.make_shrink), None by bicubic; it draws last.

    The crop's side is S / u with u ~ U[min_crop, 1], at most the image's shorter side: a smaller image is enlarged.
    With center_crop it is the largest square in the middle instead, the protocol of faces and scenes.
    With flip the crop is mirrored horizontally, with transpose vertically and along its diagonal, each by a fair coin;
    with probability recolor its channels are put in a random order and each is weakened by a gain ~ U[WEAKEST, 1].

    Returns: image, float32 [S, S, 3] in [-1, 1]; lr, float32 [l, l, 3], the same image shrunk (only if lr_size > 0);
      target, float32 [p, p, 3], a window of the crop resized from its own pixels to s x s, s uniform over the integers
      in [target_min, target_max]; target_size, s, int32; target_start, the window's (top, left), int32 [2].
    """
    h, w, _ = image.shape
    side = min(round(image_size / rng.uniform(min_crop, 1.0)), h, w)
    top, left = rng.integers(h - side + 1), rng.integers(w - side + 1)
    if center_crop:
        side, top, left = _middle(h, w)
    crop = image[top : top + side, left : left + side]  # c c 3
    crop = dihedral(
        crop,
        horizontal=flip and rng.random() < 0.5,
        vertical=transpose and rng.random() < 0.5,
        diagonal=transpose and rng.random() < 0.5,
    )
    if recolor and rng.random() < recolor:
        crop = np.uint8(np.rint(crop[..., rng.permutation(3)] * rng.uniform(WEAKEST, 1.0, 3)))
    size = int(rng.integers(target_min, target_max + 1))
    start = rng.integers(size - target_patch + 1, size=2)
    return _render(crop, rng, image_size, lr_size, size, start, target_patch, shrink)


def val_example(
    image: np.ndarray,
    position: tuple[float, float],
    rng: np.random.Generator,
    *,
    image_size: int,
    lr_size: int,
    target_max: int,
    target_patch: int,
    center_crop: bool = False,
    shrink: Shrink | None = None,
) -> dict[str, np.ndarray]:
    """Cuts the crop at a position (y, x) in [0, 1]^2 of the room that it has; like `example` without chance.

    The crop's side is S (less where the image is smaller), s is target_max, the window is central; only shrink draws.
    With center_crop the position has no room: the crop is the largest square in the middle.
    """
    h, w, _ = image.shape
    side = min(image_size, h, w)
    top, left = (round(u * (length - side)) for u, length in zip(position, (h, w), strict=True))
    if center_crop:
        side, top, left = _middle(h, w)
    start = np.repeat((target_max - target_patch) // 2, 2)
    crop = image[top : top + side, left : left + side]
    return _render(crop, rng, image_size, lr_size, target_max, start, target_patch, shrink)


def _middle(h: int, w: int) -> tuple[int, int, int]:
    """Returns the largest square in the middle: side, top, left."""
    side = min(h, w)
    return side, (h - side) // 2, (w - side) // 2


def dihedral(image: np.ndarray, *, horizontal: bool, vertical: bool, diagonal: bool) -> np.ndarray:
    """Mirrors [h, w, 3] horizontally, then vertically, then along its diagonal: all eight symmetries of the square."""
    image = image[:, ::-1] if horizontal else image
    image = image[::-1] if vertical else image
    return image.transpose(1, 0, 2) if diagonal else image


def _render(crop, rng, image_size, lr_size, size, start, patch, shrink) -> dict[str, np.ndarray]:
    """Makes image, lr and target from a square crop, uint8 [c, c, 3]."""
    crop = Image.fromarray(np.ascontiguousarray(crop))
    image = crop.resize((image_size, image_size), BICUBIC)
    top, left = start
    scale = crop.width / size  # of the crop's pixels to the target's
    box = (left * scale, top * scale, (left + patch) * scale, (top + patch) * scale)
    box = tuple(min(edge, crop.width) for edge in box)  # the product may exceed the border by a rounding error
    out = {
        "image": _to_float(image),  # S S 3
        "target": _to_float(crop.resize((patch, patch), BICUBIC, box=box)),  # p p 3; the window alone is computed
        "target_size": np.int32(size),
        "target_start": np.asarray(start, np.int32),  # 2
    }
    if lr_size:
        out["lr"] = _to_float(shrink(image, rng) if shrink else resize(image, lr_size))  # l l 3
    return out


def _to_float(image: Image.Image) -> np.ndarray:
    """Maps 0..255 to float32 in [-1, 1]."""
    return np.divide(np.asarray(image), 127.5, dtype=np.float32) - np.float32(1)
