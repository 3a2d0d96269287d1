"""Makes one training example from an image: a crop, mirrored, with its low-resolution (LR) image and a target window.

Letters: S is image_size, l is lr_size, p is target_patch, c is the side of the crop in pixels of the image. All
resizing is Pillow's BICUBIC: a = -0.5, antialiased (the kernel widens when shrinking), in 8 bits. This is like
imresize of Matlab and unlike the default of PyTorch (a = -0.75, no antialiasing). degradations.py has other ways to
make the LR image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from .degradations import BICUBIC, Shrink, resize

WEAKEST = 0.4  # smallest gain of a channel when colours are changed


class ExampleSpec(NamedTuple):
    """Holds the sizes and augmentations of examples that are cut out of images; these are fields of config.data."""

    image_size: int  # S, side of the square image that the encoder sees, in pixels
    lr_size: int  # l, side of the LR image; 0 makes none
    target_min: int  # smallest side s to which the crop is resized to be the target
    target_max: int  # largest such side
    target_patch: int  # p, side of the window of the resized crop that is returned; at most target_min
    min_crop: float = 1.0  # in (0, 1]: the crop's side is S / u with u ~ U[min_crop, 1]
    center_crop: bool = False  # take the largest square in the middle instead of a random crop
    flip: bool = False  # mirror half of the crops horizontally
    transpose: bool = False  # mirror half of the crops vertically, and half along their diagonal
    recolor: float = 0.0  # probability that the channels are put in a random order and weakened


def example(
    image: np.ndarray, rng: np.random.Generator, spec: ExampleSpec, shrink: Shrink | None = None
) -> dict[str, np.ndarray]:
    """Draws an example from an image.

    The crop's side is S / u with u ~ U[min_crop, 1], at most the image's shorter side: a smaller image is enlarged.
    With center_crop it is the largest square in the middle instead, which is the protocol for faces and scenes.
    With flip the crop is mirrored horizontally, with transpose vertically and along its diagonal, each with
    probability 1/2. With probability recolor its channels are put in a random order and each of them is multiplied by
    a gain ~ U[WEAKEST, 1].

    Args:
      image: uint8 [h, w, 3].
      rng: source of randomness; it is advanced.
      spec: sizes and augmentations.
      shrink: makes the LR image (see degradations.make_shrink) and draws after everything else; None is bicubic.

    Returns:
      image: float32 [S, S, 3] in [-1, 1].
      lr: float32 [l, l, 3], the same image shrunk; only if lr_size > 0.
      target: float32 [p, p, 3], a window of the crop resized from its own pixels to s x s, where s is uniform over the
        integers in [target_min, target_max].
      target_size: s, int32.
      target_start: (top, left) of the window, int32 [2].
    """
    side, top, left = draw_place(image.shape[:2], rng, spec, spec.image_size)
    (crop,) = augment([image[top : top + side, left : left + side]], rng, spec)  # c c 3
    return render(crop, rng, spec, shrink, *draw_window(rng, spec))


def draw_place(shape: Sequence[int], rng: np.random.Generator, spec: ExampleSpec, size: int) -> tuple[int, int, int]:
    """Draws (side, top, left) of a crop of a picture (h, w); its side is size / u, at most the shorter side."""
    h, w = shape
    side = min(round(size / rng.uniform(spec.min_crop, 1.0)), h, w)
    top, left = rng.integers(h - side + 1), rng.integers(w - side + 1)
    return middle(h, w) if spec.center_crop else (side, int(top), int(left))


def augment(crops: Sequence[np.ndarray], rng: np.random.Generator, spec: ExampleSpec) -> list[np.ndarray]:
    """Mirrors and recolours square crops [c, c, 3] of one place, all of them alike."""
    turns = dict(
        horizontal=spec.flip and rng.random() < 0.5,
        vertical=spec.transpose and rng.random() < 0.5,
        diagonal=spec.transpose and rng.random() < 0.5,
    )
    turned = [dihedral(crop, **turns) for crop in crops]
    if spec.recolor and rng.random() < spec.recolor:
        order, gains = rng.permutation(3), rng.uniform(WEAKEST, 1.0, 3)
        turned = [np.rint(crop[..., order] * gains).astype(np.uint8) for crop in turned]
    return turned


def draw_window(rng: np.random.Generator, spec: ExampleSpec) -> tuple[int, np.ndarray]:
    """Draws the side s of the resized crop, and (top, left) of the window of it that is the target."""
    size = int(rng.integers(spec.target_min, spec.target_max + 1))
    return size, rng.integers(size - spec.target_patch + 1, size=2)


def val_window(spec: ExampleSpec) -> tuple[int, np.ndarray]:
    """Returns the largest side s, and (top, left) of the central window."""
    return spec.target_max, np.repeat((spec.target_max - spec.target_patch) // 2, 2)


def val_place(
    shape: Sequence[int], position: tuple[float, float], spec: ExampleSpec, size: int
) -> tuple[int, int, int]:
    """Returns (side, top, left) of the crop of a picture (h, w) at a position; its side is `size` or less."""
    h, w = shape
    side = min(size, h, w)
    top, left = (round(u * (length - side)) for u, length in zip(position, (h, w), strict=True))
    return middle(h, w) if spec.center_crop else (side, top, left)


def val_example(
    image: np.ndarray,
    position: tuple[float, float],
    rng: np.random.Generator,
    spec: ExampleSpec,
    shrink: Shrink | None = None,
) -> dict[str, np.ndarray]:
    """Cuts a fixed validation example out of an image; it is not augmented, and only `shrink` draws at random.

    The crop's side is S (less where the image is smaller), s is target_max, and the window is central. With
    center_crop the crop is the largest square in the middle, whatever the position.

    Args:
      image: uint8 [h, w, 3].
      position: where the crop lies, (y, x) in [0, 1]^2: (0, 0) is the top left, (1, 1) the bottom right.
      rng: source of randomness of `shrink`; it is advanced.
      spec: sizes; the augmentations are not used.
      shrink: as in `example`.

    Returns:
      The same arrays as `example`.
    """
    side, top, left = val_place(image.shape[:2], position, spec, spec.image_size)
    return render(image[top : top + side, left : left + side], rng, spec, shrink, *val_window(spec))


def middle(h: int, w: int) -> tuple[int, int, int]:
    """Returns (side, top, left) of the largest square in the middle of an image."""
    side = min(h, w)
    return side, (h - side) // 2, (w - side) // 2


def dihedral(image: np.ndarray, *, horizontal: bool, vertical: bool, diagonal: bool) -> np.ndarray:
    """Mirrors an image [h, w, 3] along the chosen axes, in the order of the arguments: all symmetries of a square."""
    image = image[:, ::-1] if horizontal else image
    image = image[::-1] if vertical else image
    return image.transpose(1, 0, 2) if diagonal else image


def render(crop, rng, spec: ExampleSpec, shrink: Shrink | None, size: int, start) -> dict[str, np.ndarray]:
    """Makes the arrays of `example` from a square crop, uint8 [c, c, 3]."""
    crop = Image.fromarray(np.ascontiguousarray(crop))
    image = crop.resize((spec.image_size, spec.image_size), BICUBIC)
    (top, left), patch = start, spec.target_patch
    scale = crop.width / size  # pixels of the crop per pixel of the target

    def edge(pixels):  # the product may exceed the border by a rounding error
        return min(pixels * scale, crop.width)

    box = (edge(left), edge(top), edge(left + patch), edge(top + patch))
    out = {
        "image": _to_float(image),  # S S 3
        "target": _to_float(crop.resize((patch, patch), BICUBIC, box=box)),  # p p 3; only the window is computed
        "target_size": np.int32(size),
        "target_start": np.asarray(start, np.int32),  # 2
    }
    if spec.lr_size:
        out["lr"] = _to_float(shrink(image, rng) if shrink else resize(image, spec.lr_size))  # l l 3
    return out


def _to_float(image: Image.Image) -> np.ndarray:
    """Maps levels 0 to 255 to float32 in [-1, 1]."""
    return np.divide(np.asarray(image), 127.5, dtype=np.float32) - np.float32(1)
