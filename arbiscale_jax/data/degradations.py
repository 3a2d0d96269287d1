"""Makes the low-resolution (LR) image of a crop: by bicubic shrinking, or degraded as pictures in the wild are.

The degradation follows BSRGAN (Zhang et al., ICCV 2021: blurs, shrinking, noise and JPEG in random order) and
Real-ESRGAN (Wang et al., ICCVW 2021: generalized Gaussian blurs, Poisson and grey noise). Between two operators an
image is rounded to 8-bit RGB, as it is when a picture passes from one program to the next. No operator shifts the
picture: kernels are symmetric, and resizing keeps the corners. Letters: S is the side of the crop, l the side of the LR
image, k the side of a blur kernel.
"""

import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import fft

from arbiscale_jax.errors import UserError

BICUBIC = Image.Resampling.BICUBIC
DEGRADATIONS = ("bicubic", "real")
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of BT.601
_ENLARGING = (Image.Resampling.BILINEAR, BICUBIC, Image.Resampling.LANCZOS)
_SHRINKING = (*_ENLARGING, Image.Resampling.BOX, Image.Resampling.HAMMING)  # the last two make blocks when they enlarge
_RANGES = {  # the ranges among the fields of config.data.real, with the bounds of their values
    "blur_sigma": (0, 100),
    "kernel_radius": (1, 10),
    "beta": (0.2, 20),
    "noise_sigma": (0, 255),
    "poisson_peak": (1, 1e9),
    "jpeg_quality": (1, 100),
}

Shrink = Callable[[Image.Image, np.random.Generator], Image.Image]


class RealDegradation(NamedTuple):
    """Holds the probabilities and ranges of `degrade`; these are the fields of config.data.real.

    A range is a pair (low, high), from which a value is drawn uniformly unless its comment says otherwise.
    """

    prob: float  # probability that an example is degraded at all; the others get the plain bicubic LR image
    blur_prob: float  # probability of each of the two blurs
    blur_sigma: tuple[float, float]  # standard deviation along each axis of a blur kernel, in LR pixels
    kernel_radius: tuple[float, float]  # where a kernel is cut off, in multiples of its larger standard deviation
    anisotropic_prob: float  # probability that a kernel has two different standard deviations, at a random angle
    generalized_prob: float  # probability of a generalized Gaussian kernel exp(-r^(2 beta) / 2)
    beta: tuple[float, float]  # shape of that kernel, drawn log-uniformly; below 1 is peaked, above 1 is flat
    noise_prob: float  # probability of noise
    noise_sigma: tuple[float, float]  # standard deviation of Gaussian noise, in 8-bit levels
    poisson_prob: float  # probability that the noise is Poisson instead of Gaussian
    poisson_peak: tuple[float, float]  # photons of Poisson noise in a white pixel, drawn log-uniformly
    grey_prob: float  # probability that all channels get the same noise
    jpeg_prob: float  # probability of each of the two JPEG compressions
    jpeg_quality: tuple[int, int]  # JPEG quality on Pillow's scale, a whole number from 1 to 100


def make_shrink(config: Mapping[str, Any]) -> Shrink | None:
    """Builds the function that makes the LR image of a crop.

    Args:
      config: config.data of an experiment.

    Returns:
      A function (crop, random generator) -> LR image that can be pickled, or None for plain antialiased bicubic
      shrinking, which draws nothing.

    Raises:
      UserError: for the first field that makes no sense.
    """
    kind, low, high = config["degradation"], config["lr_scale_min"], config["lr_scale_max"]
    if kind not in DEGRADATIONS:
        raise UserError(f"data.degradation is one of {', '.join(DEGRADATIONS)}, got {kind!r}.")
    if not (low == high == 0 or 1 <= low <= high <= config["image_size"]):
        raise UserError(
            "1 <= data.lr_scale_min <= data.lr_scale_max <= data.image_size must hold, or both be 0, got "
            f"{low} and {high}."
        )
    fields: dict[str, Any] = {name: tuple(v) if name in _RANGES else v for name, v in config["real"].items()}
    _check(fields)
    if not config["lr_size"] or (kind == "bicubic" and high == 0):
        return None
    if high == 0:
        low = high = config["image_size"] / config["lr_size"]
    function = partial(degrade, real=RealDegradation(**fields)) if kind == "real" else shrink_twice
    return partial(function, lr_size=config["lr_size"], scales=(low, high))


def _check(fields: Mapping[str, Any]) -> None:
    """Checks the fields of config.data.real and raises UserError for the first one that makes no sense."""
    for name, value in fields.items():
        if name not in _RANGES:
            if not 0 <= value <= 1:
                raise UserError(f"data.real.{name} is a probability, within 0 and 1, got {value}.")
            continue
        least, most = _RANGES[name]
        if len(value) != 2 or not least <= value[0] <= value[1] <= most:
            raise UserError(f"data.real.{name} is (low, high) with {least} <= low <= high <= {most}, got {value}.")


def shrink_twice(image: Image.Image, rng: np.random.Generator, *, lr_size: int, scales: tuple[float, float]):
    """Shrinks a crop by a random factor s ~ U[scales], then resizes it to lr_size; an s above S / l leaves a blur.

    Both steps are bicubic and antialiased. Where S / s rounds to l the result is the plain bicubic one.
    """
    return resize(resize(image, _draw_side(image, rng, scales)), lr_size)


def degrade(
    image: Image.Image,
    rng: np.random.Generator,
    real: RealDegradation,
    *,
    lr_size: int,
    scales: tuple[float, float],
) -> Image.Image:
    """Shrinks a square crop to lr_size x lr_size and degrades it as pictures in the wild are degraded.

    Two blurs, one shrinking with a random resampling kernel, noise and JPEG come in random order; each of them except
    the shrinking has its own probability. Then the image is resized to lr_size, and a last JPEG follows with
    probability real.jpeg_prob.

    Args:
      image: square RGB crop.
      rng: source of randomness; it is advanced.
      real: probabilities and ranges; with probability 1 - real.prob the plain bicubic LR image is returned.
      lr_size: side of the LR image in pixels.
      scales: range (low, high) of the factor s ~ U[low, high] by which the crop is first shrunk.
    """
    if rng.random() >= real.prob:
        return resize(image, lr_size)

    def blur_once(image):
        if rng.random() >= real.blur_prob:
            return image
        pixels = image.width / lr_size  # per LR pixel, the unit of blur_sigma
        sigma = pixels * rng.uniform(*real.blur_sigma, size=2)
        sigma = sigma if rng.random() < real.anisotropic_prob else sigma[[0, 0]]
        shape = math.exp(rng.uniform(*np.log(real.beta))) if rng.random() < real.generalized_prob else 1.0
        radius = math.ceil(rng.uniform(*real.kernel_radius) * sigma.max())
        return blur(image, gaussian_kernel(radius, sigma, rng.uniform(0, np.pi), shape))

    def resize_randomly(image, side):
        kernels = _ENLARGING if side > image.width else _SHRINKING
        return resize(image, side, kernels[rng.integers(len(kernels))])

    def shrink(image):
        return resize_randomly(image, _draw_side(image, rng, scales))

    def add_noise(image):
        if rng.random() >= real.noise_prob:
            return image
        grey = rng.random() < real.grey_prob
        if rng.random() < real.poisson_prob:
            return poisson_noise(image, rng, math.exp(rng.uniform(*np.log(real.poisson_peak))), grey=grey)
        return gaussian_noise(image, rng, rng.uniform(*real.noise_sigma), grey=grey)

    def compress(image):
        if rng.random() >= real.jpeg_prob:
            return image
        return jpeg(image, int(rng.integers(real.jpeg_quality[0], real.jpeg_quality[1] + 1)))

    operators = (blur_once, blur_once, shrink, add_noise, compress)
    for i in rng.permutation(len(operators)):
        image = operators[i](image)
    return compress(resize_randomly(image, lr_size))


def gaussian_kernel(radius: int, sigma, angle: float = 0.0, beta: float = 1.0) -> np.ndarray:
    """Samples a generalized Gaussian kernel exp(-r^(2 beta) / 2), where r is the Mahalanobis distance.

    r^2 is scaled by 2^(1/beta) Gamma(2/beta) / (2 Gamma(1/beta)), so that sigma stays the standard deviation of the
    kernel, as far as the kernel is sampled densely enough and not cut off.

    Args:
      radius: k = 2 radius + 1 is the side of the kernel in pixels.
      sigma: the standard deviations along the two axes of the kernel, in pixels.
      angle: angle between the kernel's first axis and the x axis, in radians.
      beta: 1 is a Gaussian; a smaller value has a sharper peak, a larger value a flatter one.

    Returns:
      The kernel, float64 [k, k]; its sum is 1.
    """
    sigma = np.maximum(np.asarray(sigma, np.float64), 1e-2)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    r2 = (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2
    r2 *= 2 ** (1 / beta) * math.gamma(2 / beta) / (2 * math.gamma(1 / beta))
    kernel = np.exp(-0.5 * r2**beta)
    return kernel / kernel.sum()


def blur(image: Image.Image, kernel: np.ndarray) -> Image.Image:
    """Convolves an image with a symmetric kernel [k, k] whose sum is 1; the image is mirrored at its border."""
    radius = len(kernel) // 2
    x = np.pad(np.asarray(image, np.float32), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    shape = tuple(fft.next_fast_len(n, real=True) for n in x.shape[:2])  # what wraps around is cut off
    transfer = np.asarray(fft.rfft2(kernel.astype(np.float32), shape))[:, :, None]
    out = np.asarray(fft.irfft2(fft.rfft2(x, shape, axes=(0, 1)) * transfer, shape, axes=(0, 1)))
    return _to_image(out[2 * radius : 2 * radius + image.height, 2 * radius : 2 * radius + image.width])


def gaussian_noise(image: Image.Image, rng: np.random.Generator, sigma: float, *, grey: bool) -> Image.Image:
    """Adds Gaussian noise of standard deviation sigma, in 8-bit levels; with `grey` all channels get the same noise."""
    noise = rng.standard_normal((image.height, image.width, 1 if grey else 3), np.float32)
    return _to_image(np.asarray(image, np.float32) + np.float32(sigma) * noise)


def poisson_noise(image: Image.Image, rng: np.random.Generator, peak: float, *, grey: bool) -> Image.Image:
    """Adds the noise of counted photons: a level x becomes 255 Poisson(peak x / 255) / peak.

    The standard deviation at x is sqrt(255 x / peak).

    Args:
      image: RGB image.
      rng: source of randomness; it is advanced.
      peak: mean number of photons in a white pixel.
      grey: count photons of the luma alone and add its error to all channels.
    """
    x = np.asarray(image, np.float32)
    light = (x @ GREY)[:, :, None] if grey else x  # h w 1 or 3
    counted = rng.poisson(light * (peak / 255)).astype(np.float32) * np.float32(255 / peak)
    return _to_image(x + (counted - light))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compresses an image as JPEG with Pillow, which halves the chroma resolution by default, and decodes it again."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as out:
        return out.convert("RGB")


def resize(image: Image.Image, side: int, kernel: Image.Resampling = BICUBIC) -> Image.Image:
    """Resizes an image to side x side with antialiasing; an image of that size is returned unchanged."""
    return image if image.size == (side, side) else image.resize((side, side), kernel)


def _draw_side(image: Image.Image, rng: np.random.Generator, scales: tuple[float, float]) -> int:
    """Returns the side of an image that is shrunk by a random factor s ~ U[scales]."""
    return max(1, round(image.width / rng.uniform(*scales)))


def _to_image(x: np.ndarray) -> Image.Image:
    """Rounds an array [h, w, 3] to an 8-bit image."""
    return Image.fromarray(np.clip(np.rint(x), 0, 255).astype(np.uint8))
