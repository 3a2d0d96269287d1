"""Measures methods of super-resolution on pairs of low resolution and truth."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np

from arbiscale_jax import perceptual
from arbiscale_jax.errors import UserError
from arbiscale_jax.inference import Baseline, Model, to_floats

from . import distortion, weave
from .protocols import INTERPOLATIONS, Pair, resize
from .statistics import mean_and_error

_LPIPS_NET = {"lpips": "alex", "lpips_vgg": "vgg", "diversity": "alex"}
OF_ALL_IMAGES = ("weave",)  # metrics of all images together, which a single image does not have; see weave.Spectra


class Method(NamedTuple):
    """Describes a way to upscale, split into a costly part per input and a part per output size."""

    name: str  # the method's name in tables
    sample: Callable[[np.ndarray], Any]  # lr uint8 [h, w, 3] -> anything
    render: Callable[[Any, tuple[int, int]], np.ndarray]  # (result of sample, size) -> uint8 [n, H, W, 3]
    model: Model | None = None  # the model, or None for an interpolation


def interpolation(name: str) -> Method:
    """Makes a method from a name of protocols.INTERPOLATIONS."""
    assert name in INTERPOLATIONS, name
    return Method(name, lambda lr: lr, lambda lr, size: resize(lr, size, name)[None])


def from_model(name: str, model, samples: int = 1, seed: int = 0, **sampling) -> Method:
    """Makes a method from a model, which samples latents once per input and renders them at each size.

    Args:
      name: the method's name.
      model: the model.
      samples: the number of answers per input.
      seed: the seed of the noise.
      **sampling: options of Model.upscale_latent: steps, sampler, eta, start and others.

    Returns:
      The method.
    """
    options = dict(samples=samples, seed=seed, **sampling)

    return Method(name, lambda lr: model.upscale_latent(lr, **options), model.render, model)


def from_baseline(name: str, model: Baseline, samples: int = 1, seed: int = 0, **sampling) -> Method:
    """Makes a method from one with which the paper compares, which computes anew for each size; see `from_model`."""
    options = dict(samples=samples, seed=seed, **sampling)
    return Method(name, lambda lr: lr, lambda lr, size: model.upscale(lr, size=size, **options))


def make_metrics(names: Sequence[str]) -> Callable[[np.ndarray, Pair, int], dict[str, float]]:
    """Loads what metrics of names.METRICS["upscale"] need, and returns the function that computes them.

    Args:
      names: the metrics, without speed; those of OF_ALL_IMAGES have no value here.

    Returns:
      A function (outputs uint8 [n, H, W, 3], pair, border) -> {name: value}. Values are means over the n outputs, those
        of a PSNR over the outputs that are not exact; PSNR and SSIM leave out `border` pixels per side, and other
        metrics nothing.

    Raises:
      UserError: if a package is missing.
    """
    nets = {net: perceptual.load_lpips(net) for net in sorted({_LPIPS_NET[x] for x in names if x in _LPIPS_NET})}
    jitted = jax.jit(jax.default_matmul_precision("highest")(perceptual.lpips))

    def distance(net, a, b):
        return float(jitted(nets[net], to_floats(a)[None], to_floats(b)[None])[0])

    def measure_one(output, pair, border):
        a, b = (distortion.cut_border(image, border) for image in (output, pair.truth))
        found = {}
        for name in names:
            if name in ("psnr", "ssim"):
                found[name] = getattr(distortion, name)(a, b)
            elif name in ("psnr_y", "ssim_y"):
                found[name] = getattr(distortion, name[:4])(distortion.luma(a), distortion.luma(b))
            elif name in ("lpips", "lpips_vgg"):
                found[name] = distance(_LPIPS_NET[name], output, pair.truth)
            elif name == "lr_psnr":
                found[name] = distortion.lr_psnr(output, pair.lr)
            elif name == "color":
                shift = distortion.color_shift(output, pair.truth)
                found[name] = float(np.abs(shift).mean())
                found |= {f"color_{channel}": float(value) for channel, value in zip("rgb", shift, strict=True)}
        return found

    def measure(outputs, pair, border):
        found = [measure_one(output, pair, border) for output in outputs]
        means = {name: mean_and_error([one[name] for one in found])[0] for name in found[0]}
        if "diversity" in names:
            pairs = [distance("alex", outputs[i], outputs[j]) for i, j in combinations(range(len(outputs)), 2)]
            means["diversity"] = float(np.mean(pairs)) if pairs else 0.0  # a single answer has no diversity
        return means

    return measure


def evaluate(
    methods: Sequence[Method],
    cases: Iterable[tuple[str, Sequence[Pair]]],
    measure: Callable,
    border: int | None = None,
    on_outputs: Callable[[str, Pair, dict[str, np.ndarray]], None] | None = None,
    advance: Callable[[str], None] = lambda text: None,
) -> list[dict]:
    """Runs every method on every case; call `check_size` first, since models are slow.

    Args:
      methods: the methods.
      cases: pairs (name of the image, its test cases).
      measure: the function that `make_metrics` returns.
      border: the pixels that PSNR and SSIM leave out per side; by default distortion.default_border.
      on_outputs: a function that is called with the image's name, a test case and each method's outputs [n, H, W, 3].
      advance: a function that is called with a line of text after each method.

    Returns:
      Records with image, method, scale and the metrics.
    """
    records = []
    for image, pairs in cases:
        states = {}  # {method name: (lr, result of its sample)}, since scales may share an input
        for pair in pairs:
            outputs = {}
            for method in methods:
                if states.get(method.name, (None,))[0] is not pair.lr:
                    states[method.name] = (pair.lr, method.sample(pair.lr))
                found = method.render(states[method.name][1], pair.truth.shape[:2])
                record = {"image": image, "method": method.name, "scale": pair.scale}
                records.append(record | measure(found, pair, border_of(pair.scale, border)))
                outputs[method.name] = found
                advance(f"{image} x{pair.scale:g} {method.name}")
            if on_outputs:
                on_outputs(image, pair, outputs)
    return records


def border_of(scale: float, border: int | None) -> int:
    """Returns the pixels to cut off each side at this scale; `border` is the user's choice or None."""
    return distortion.default_border(scale) if border is None else border


def check_size(image: str, scale: float, size: tuple[int, int], border: int | None, metrics: Sequence[str]) -> None:
    """Raises UserError if a truth of this size is too small for one of the metrics; `image` is the image's name."""
    cut, side = border_of(scale, border), min(size)
    for name in metrics:
        needed = perceptual.MIN_SIDE[_LPIPS_NET[name]] if name in _LPIPS_NET else 0
        if name == "weave":
            needed = weave.TILE
        if name.startswith(("psnr", "ssim")):
            needed = 2 * cut + (distortion.SSIM_WINDOW if name.startswith("ssim") else 1)
        if side < needed:
            raise UserError(
                f"{image} at scale {scale:g} has a truth of {size[0]} x {size[1]} pixels, too few for {name} with a "
                f"border of {cut}: it needs {needed} per side; leave the scale or the metric out or give larger images."
            )
