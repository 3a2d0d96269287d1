"""Enlarges images with the methods of `baselines`, each as one function of (params, image, size, noise)."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import baselines, diffusion, models

BAND_PIXELS = 2**16  # pixels that LIIF renders at a time; each takes about 4 KB


class Noise(NamedTuple):
    """Says how a method that samples does it; the others take no notice."""

    key: jax.Array  # the random key of this answer
    steps: int  # evaluations of the network
    eta: float  # amount of noise in each step
    advance: diffusion.Advance | None = None  # is told of evaluations


Enlarge = Callable[[Mapping, Any, tuple[int, int], Noise], np.ndarray]


def make_enlarger(fields: Mapping) -> Enlarge:
    """Makes the function of one method; `fields` is the part `model.baseline` of a configuration.

    It maps (params, an image float32 [h w 3] in [-1, 1], (height, width), Noise) to float32 [height width 3], about
    [-1, 1]. Methods of one scale enlarge by it, and their result is resized (bicubic, antialiased). Each shape compiles
    programs of its own.
    """
    net = baselines.build(fields)
    make = {"liif": _liif, "esrgan": _fixed, "sr3": _sr3, "idm": _idm}[fields["method"]]
    return make(net, fields)


def _liif(net, fields) -> Enlarge:
    encode = jax.jit(lambda params, lr: net.apply({"params": params}, lr, method="features"))
    draw = jax.jit(lambda params, x, rows, cols: net.apply({"params": params}, x, rows, cols, method="render"))

    def enlarge(params, lr, size, noise):
        features, out = encode(params, lr[None]), np.empty((*size, 3), np.float32)
        (h, w), (height, width) = lr.shape[:2], size
        step = min(height, max(1, BAND_PIXELS // width))
        cols = models.axis(w, width)
        for first in range(0, height, step):
            rows = models.axis(h, height, first, step)  # the last band may extend beyond the image
            stop = min(first + step, height)
            out[first:stop] = np.asarray(draw(params, features, rows, cols))[0, : stop - first]
        return out

    return enlarge


def _resized(x, size: tuple[int, int]) -> np.ndarray:
    """Resizes x [h w 3] with a bicubic kernel and, where it becomes smaller, antialiasing."""
    return np.asarray(x if x.shape[:2] == size else _resize(x, size))


@partial(jax.jit, static_argnums=1)
def _resize(x, size):
    return jax.image.resize(x, (*size, 3), "cubic", precision=jax.lax.Precision.HIGHEST)


def _fixed(net, fields) -> Enlarge:
    run = jax.jit(lambda params, lr: net.apply({"params": params}, lr)[0])
    return lambda params, lr, size, noise: _resized(run(params, lr[None]), size)


def _samplers(fields, eps_fn: Callable) -> Callable:
    """Returns a function (steps, eta) -> compiled sampler, which is found again."""
    alpha_bar = diffusion.make_alpha_bar(fields["timesteps"], fields["first_beta"], fields["last_beta"], power=1)
    known: dict[tuple[int, float], Callable] = {}

    def get(noise: Noise):
        name = (noise.steps, noise.eta)
        if name not in known:
            known[name] = baselines.make_sampler(eps_fn, alpha_bar, steps=noise.steps, eta=noise.eta)
        return known[name]

    return get


def _sr3(net, fields) -> Enlarge:
    multiple = 2 ** (len(fields["channel_mult"]) - 1)
    samplers = _samplers(fields, lambda params, x_t, level, c: net.apply({"params": params}, x_t, level, c))

    def enlarge(params, lr, size, noise):
        h, w = (round(side * fields["scale"]) for side in lr.shape[:2])
        c = baselines.upsampled(jnp.asarray(lr)[None], (h, w))
        down, right = (-side % multiple for side in (h, w))
        c = models.reflect(models.reflect(c, 1, 0, down), 2, 0, right)
        x = samplers(noise)(noise.key, params, c, c.shape, noise.advance)
        return _resized(x[0, :h, :w], size)

    return enlarge


def _idm(net, fields) -> Enlarge:
    def eps_fn(params, x_t, level, given):
        return net.apply({"params": params}, x_t, level, *given, method="denoise")

    samplers = _samplers(fields, eps_fn)
    encode = jax.jit(
        lambda params, lr, size: net.apply({"params": params}, lr, size, method="encode"), static_argnums=2
    )

    def enlarge(params, lr, size, noise):
        ratio = math.sqrt(math.prod(size) / math.prod(lr.shape[:2]))  # of sides, where the aspect ratio changes
        fraction = jnp.full(1, (ratio - 1) / (fields["scale"] - 1), jnp.float32)
        given = (encode(params, lr[None], size), fraction)
        return np.asarray(samplers(noise)(noise.key, params, given, (1, *size, 3), noise.advance)[0])

    return enlarge
