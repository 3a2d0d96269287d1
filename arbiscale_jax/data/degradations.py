"""How the low-resolution image is made from a crop: bicubic, or as pictures in the wild come by it.

The second follows the practice of BSRGAN (Zhang et al., ICCV 2021: blurs, shrinking, noise and JPEG in random order)
and Real-ESRGAN (Wang et al., ICCVW 2021: generalized Gaussian blurs, Poisson and grey noise). Between two operators an
image is 8-bit RGB, as between the programs that pictures go through. Nothing shifts the picture: kernels are symmetric
and resizing keeps the corners. Letters: S side of the crop, l of the LR image, k of a blur kernel.
"""

import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from scipy import fft

from arbiscale_jax.errors import UserError

BICUBIC = Image.Resampling.BICUBIC
DEGRADATIONS = ("bicubic", "real")
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of BT.601
_ENLARGING = (Image.Resampling.BILINEAR, BICUBIC, Image.Resampling.LANCZOS)
_SHRINKING = (*_ENLARGING, Image.Resampling.BOX, Image.Resampling.HAMMING)  # which enlarge in blocks
_RANGES = {  # of config.data.real, with the bounds of their values
    "blur_sigma": (0, 100),
    "kernel_radius": (1, 10),
    "beta": (0.2, 20),
    "noise_sigma": (0, 255),
    "poisson_peak": (1, 1e9),
    "jpeg_quality": (1, 100),
}

Shrink = Callable[[Image.Image, np.random.Generator], Image.Image]


def make_shrink(config: Mapping[str, Any]) -> Shrink | None:
    """Builds what turns a crop and a random generator into its LR image; config is config.data.

    Returns: the function (it can be pickled), or None for a plain antialiased bicubic, which draws nothing.
    Raises: UserError for the first field that makes no sense.
    """
    kind, low, high = config["degradation"], config["lr_scale_min"], config["lr_scale_max"]
    if kind not in DEGRADATIONS:
        raise UserError(f"data.degradation is one of {', '.join(DEGRADATIONS)}, got {kind!r}.")
    if not (low == high == 0 or 1 <= low <= high <= config["image_size"]):
        raise UserError(
            "1 <= data.lr_scale_min <= data.lr_scale_max <= data.image_size must hold, or both be 0, got "
            f"{low} and {high}."
        )
    fields = {name: tuple(v) if name in _RANGES else v for name, v in config["real"].items()}
    _check(fields)
    if not config["lr_size"] or (kind == "bicubic" and high == 0):
        return None
    if high == 0:
        low = high = config["image_size"] / config["lr_size"]
    function = partial(degrade, **fields) if kind == "real" else shrink_twice
    return partial(function, lr_size=config["lr_size"], scales=(low, high))


def _check(fields: Mapping[str, Any]) -> None:
    """Raises UserError for the first field of config.data.real that makes no sense."""
    for name, value in fields.items():
        if name not in _RANGES:
            if not 0 <= value <= 1:
                raise UserError(f"data.real.{name} is a probability, within 0 and 1, got {value}.")
            continue
        least, most = _RANGES[name]
        if len(value) != 2 or not least <= value[0] <= value[1] <= most:
            raise UserError(f"data.real.{name} is (low, high) with {least} <= low <= high <= {most}, got {value}.")


def shrink_twice(image: Image.Image, rng: np.random.Generator, *, lr_size: int, scales: tuple[float, float]):
    """Shrinks a crop by s ~ U[scales], then brings it to lr_size, so that an s above S / l leaves a blur.

    Both bicubic and antialiased; where S / s rounds to l the result is the plain bicubic one.
    """
    return resize(resize(image, _draw_side(image, rng, scales)), lr_size)


def degrade(
    image: Image.Image,
    rng: np.random.Generator,
    *,
    lr_size: int,
    scales: tuple[float, float],
    prob: float,
    blur_prob: float,
    blur_sigma: tuple[float, float],
    kernel_radius: tuple[float, float],
    anisotropic_prob: float,
    generalized_prob: float,
    beta: tuple[float, float],
    noise_prob: float,
    noise_sigma: tuple[float, float],
    poisson_prob: float,
    poisson_peak: tuple[float, float],
    grey_prob: float,
    jpeg_prob: float,
    jpeg_quality: tuple[int, int],
) -> Image.Image:
    """Shrinks a square crop to lr_size as the wild does; the arguments are the fields of config.data.real.

    Two blurs, shrinking by s ~ U[scales] with a random kernel, noise and JPEG come in random order, each but the
    shrinking with its probability; then the image is brought to lr_size, and a last JPEG follows with jpeg_prob. With
    probability 1 - prob the LR is the plain bicubic one.
    """
    if rng.random() >= prob:
        return resize(image, lr_size)

    def blur_once(image):
        if rng.random() >= blur_prob:
            return image
        pixels = image.width / lr_size  # blur_sigma counts LR pixels, wherever in the order the blur comes
        sigma = pixels * rng.uniform(*blur_sigma, size=2)
        sigma = sigma if rng.random() < anisotropic_prob else sigma[[0, 0]]
        shape = math.exp(rng.uniform(*np.log(beta))) if rng.random() < generalized_prob else 1.0
        radius = math.ceil(rng.uniform(*kernel_radius) * sigma.max())
        return blur(image, gaussian_kernel(radius, sigma, rng.uniform(0, np.pi), shape))

    def resize_randomly(image, side):
        kernels = _ENLARGING if side > image.width else _SHRINKING
        return resize(image, side, kernels[rng.integers(len(kernels))])

    def shrink(image):
        return resize_randomly(image, _draw_side(image, rng, scales))

    def add_noise(image):
        if rng.random() >= noise_prob:
            return image
        grey = rng.random() < grey_prob
        if rng.random() < poisson_prob:
            return poisson_noise(image, rng, math.exp(rng.uniform(*np.log(poisson_peak))), grey=grey)
        return gaussian_noise(image, rng, rng.uniform(*noise_sigma), grey=grey)

    def compress(image):
        if rng.random() >= jpeg_prob:
            return image
        return jpeg(image, int(rng.integers(jpeg_quality[0], jpeg_quality[1] + 1)))

    operators = (blur_once, blur_once, shrink, add_noise, compress)
    for i in rng.permutation(len(operators)):
        image = operators[i](image)
    return compress(resize_randomly(image, lr_size))


def gaussian_kernel(radius: int, sigma, angle: float = 0.0, beta: float = 1.0) -> np.ndarray:
    """Samples the kernel exp(-r^(2 beta) / 2), r the Mahalanobis distance, on a grid and divides by its sum -> [k k].

    Args: radius, k = 2 radius + 1 pixels a side; sigma, the standard deviations along the kernel's two axes; angle,
      of the first to the x axis, in radians; beta, 1 for a Gaussian, less for a sharper peak, more for a flatter one.
    The generalized kernel is scaled by 2^(1/beta) Gamma(2/beta) / (2 Gamma(1/beta)), so that sigma stays its standard
    deviation (as far as it is sampled densely enough and not cut off).
    """
    sigma = np.maximum(np.asarray(sigma, np.float64), 1e-2)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    r2 = (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2
    r2 *= 2 ** (1 / beta) * math.gamma(2 / beta) / (2 * math.gamma(1 / beta))
    kernel = np.exp(-0.5 * r2**beta)
    return kernel / kernel.sum()


def blur(image: Image.Image, kernel: np.ndarray) -> Image.Image:
    """Convolves with a symmetric kernel [k k] that sums to one; the image is mirrored beyond its border."""
    radius = len(kernel) // 2
    x = np.pad(np.asarray(image, np.float32), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    shape = tuple(fft.next_fast_len(n, real=True) for n in x.shape[:2])  # wrapped values fall into what is cut off
    transfer = fft.rfft2(kernel.astype(np.float32), shape)[:, :, None]
    out = fft.irfft2(fft.rfft2(x, shape, axes=(0, 1)) * transfer, shape, axes=(0, 1))
    return _to_image(out[2 * radius : 2 * radius + image.height, 2 * radius : 2 * radius + image.width])


def gaussian_noise(image: Image.Image, rng: np.random.Generator, sigma: float, *, grey: bool) -> Image.Image:
    """Adds N(0, sigma^2), in 8-bit levels; the same to all channels of a pixel where `grey`."""
    noise = rng.standard_normal((image.height, image.width, 1 if grey else 3), np.float32)
    return _to_image(np.asarray(image, np.float32) + np.float32(sigma) * noise)


def poisson_noise(image: Image.Image, rng: np.random.Generator, peak: float, *, grey: bool) -> Image.Image:
    """Counts photons, `peak` of them where white: x becomes 255 Poisson(peak x / 255) / peak.

    The standard deviation at x is sqrt(255 x / peak). Where `grey` the luma is counted and its error added to all
    channels.
    """
    x = np.asarray(image, np.float32)
    light = (x @ GREY)[:, :, None] if grey else x  # h w 1 or 3
    counted = rng.poisson(light * (peak / 255)).astype(np.float32) * np.float32(255 / peak)
    return _to_image(x + (counted - light))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compresses with Pillow (chroma halved, its default) and reads the result."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as out:
        return out.convert("RGB")


def resize(image: Image.Image, side: int, kernel: Image.Resampling = BICUBIC) -> Image.Image:
    """Resizes to side x side, antialiased; an image that has that size stays as it is."""
    return image if image.size == (side, side) else image.resize((side, side), kernel)


def _draw_side(image: Image.Image, rng: np.random.Generator, scales: tuple[float, float]) -> int:
    return max(1, round(image.width / rng.uniform(*scales)))


def _to_image(x: np.ndarray) -> Image.Image:
    """Rounds [h w 3] to 8 bits."""
    return Image.fromarray(np.clip(np.rint(x), 0, 255).astype(np.uint8))
