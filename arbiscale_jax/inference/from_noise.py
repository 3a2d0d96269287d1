"""Samples latents from noise, in batches of fixed shapes: of numbers, on the way between seeds, on other canvases."""

from collections.abc import Container, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.runtime.random import fold_name, seed_key

from .engine import Engine, at_once
from .given import Blend, Given, guidance_of, slerp_weights
from .prompts import Request, labels_for
from .sheets import Progress, cell_names

FINE = "fine"  # the noise of a canvas that goes on from a smaller latent


def generate(
    engine: Engine, numbers: Sequence[int] | np.ndarray, request: Request, blend: Blend | None = None
) -> jax.Array:
    """Samples the latents of these numbers from noise, in one batch.

    Args:
      engine: networks and weights; the batch is computed where engine.put places it.
      numbers: the numbers of the latents; number i depends on (seed, i) alone, up to rounding by the batch's size.
      request: what is generated, and how.
      blend: how noise is mixed with that of another seed; None means not at all.

    Returns:
      The latents [n, h, w, c].

    Raises:
      UserError: if the model needs a condition, or has no U-Net.
    """
    params, options, run = engine.unet(conditioned=False), request.options.compiled, engine.networks
    shape = engine.generated_shape(request.canvas)[:2]
    trained = engine.generated_shape()[:2]
    if not request.coarse or shape == trained:
        return run.run_answer(
            params, _given(engine, numbers, request, shape, blend), options=options._replace(start=0.0)
        )
    coarse = generate(engine, numbers, request._replace(canvas=None), blend)
    steps = max(1, round(options.steps * request.coarse))
    options = options._replace(start=request.coarse, steps=steps)
    given = _given(engine, numbers, request, shape, blend, FINE)
    z_t = run.run_first(given._replace(c=enlarge(coarse, shape)), options=options)
    return run.run_sample(params, z_t, given, options=options)


def _given(engine: Engine, numbers, request: Request, shape, blend: Blend | None, stream: str = "") -> Given:
    """Returns what the sampling of latents of a shape (h, w) is given; `stream` names noise of its own."""

    def derived(key):
        return fold_name(key, stream) if stream else key

    options, label = request.options, labels_for(engine.vocabulary, request, numbers)
    cells = engine.put(cell_names(numbers, (0, 0), shape))
    blend = blend and blend._replace(key=derived(blend.key))
    given = Given(
        None, engine.strength(options.restore, len(cells)), cells, derived(seed_key(request.seed)), blend=blend
    )
    if label is None:
        return given
    guidance = guidance_of(options, len(engine.networks.alpha_bar))
    return given._replace(label=engine.put(label), guidance=guidance)


def enlarge(z, shape: tuple[int, int]) -> jax.Array:
    """Enlarges latents [b h w c] so that the shorter side fits `shape`, and continues the longer one by its edge."""
    inner = tuple(round(side * min(shape[0] / z.shape[1], shape[1] / z.shape[2])) for side in z.shape[1:3])
    z = jax.image.resize(z, (len(z), *inner, z.shape[-1]), "cubic")
    pads = [((full - side) // 2, full - side - (full - side) // 2) for side, full in zip(inner, shape, strict=True)]
    return jnp.pad(z, ((0, 0), *pads, (0, 0)), mode="edge")


def generate_each(
    engine: Engine, num: int, request: Request, progress: Progress | None, wanted: Container[int]
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Samples the latents 0 .. num - 1 in batches of a fixed size, of which those without a wanted number are left out.

    A latent lies in the same batch whatever is wanted.

    Args:
      engine: as in `generate`.
      num: the number of latents; it decides the size of a batch.
      request: as in `generate`.
      progress: a function that is called with (done, num) after each batch, or None.
      wanted: numbers of latents.

    Yields:
      Pairs (the wanted numbers of a batch, their latents [n h w c] on the host).
    """
    h, w, _ = engine.generated_shape(request.canvas)
    size = at_once(h * w, num)
    for first in range(0, num, size):
        some = np.arange(first, first + size) % num  # the last batch is filled up
        there = [i for i in range(first, min(first + size, num)) if i in wanted]
        found = np.asarray(generate(engine, some, request)) if there else None
        if progress:
            progress(min(first + size, num), num)
        if found is not None:
            yield there, found[[i - first for i in there]]


def interpolate_each(
    engine: Engine, path: tuple[Sequence[int], int, int], request: Request, progress: Progress | None
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Samples latents on the way from seed to seed, in batches of a fixed size.

    Args:
      engine: as in `generate`.
      path: the seeds, the number of frames, and which latent of each seed.
      request: as in `generate`, whose seed does not count.
      progress: a function that is called with (done, frames) after each batch, or None.

    Yields:
      Pairs (numbers of frames, their latents [n h w c] on the host).
    """
    seeds, frames, index = path
    h, w, _ = engine.generated_shape(request.canvas)
    size = at_once(h * w, frames)
    along = np.arange(frames) * (len(seeds) - 1)  # in legs, times frames - 1
    legs, at_seed = along // (frames - 1), along % (frames - 1) == 0

    def done(there):
        if progress:
            progress(int(there[-1]) + 1, frames)
        return list(map(int, there))

    for leg, seed in enumerate(seeds):
        some, mine = request._replace(seed=seed), legs == leg
        for frame in np.flatnonzero(mine & at_seed):  # by the program of `generate`, with its rounding
            yield done([frame]), np.asarray(generate(engine, [index], some))
        numbers = np.flatnonzero(mine & ~at_seed)
        for there in (numbers[first : first + size] for first in range(0, len(numbers), size)):
            shares = np.resize(along[there] - leg * (frames - 1), size) / (frames - 1)
            own, other = (engine.put(x[:, None, None, None]) for x in slerp_weights(shares))
            blend = Blend(seed_key(seeds[leg + 1]), own, other)
            yield done(there), np.asarray(generate(engine, [index] * size, some, blend))[: len(there)]
