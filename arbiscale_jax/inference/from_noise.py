"""Samples latents from noise, in batches of fixed shapes: of numbers, on the way between seeds, on other canvases."""

from collections.abc import Container, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.diffusion import Advance
from arbiscale_jax.runtime.random import fold_name, seed_key

from .engine import Engine
from .given import Blend, Given, guidance_of, slerp_weights
from .options import Sampling
from .prompts import Request, labels_for
from .reverse_process import denoise
from .sheets import Progress, cell_names, counting

FINE = "fine"  # the noise of a canvas that goes on from a smaller latent


def generate(
    engine: Engine,
    numbers: Sequence[int] | np.ndarray,
    request: Request,
    blend: Blend | None = None,
    advance: Advance | None = None,
) -> jax.Array:
    """Samples the latents of these numbers from noise, in one batch.

    Args:
      engine: networks and weights; the batch is computed where engine.put places it.
      numbers: the numbers of the latents; number i depends on (seed, i) alone, up to rounding by the batch's size.
      request: what is generated, and how.
      blend: how noise is mixed with that of another seed; None means not at all.
      advance: as in `denoise`.

    Returns:
      The latents [n, h, w, c].

    Raises:
      UserError: if the model needs a condition, or has no U-Net.
    """
    engine.unet(conditioned=False)
    shape, trained = engine.generated_shape(request.canvas)[:2], engine.generated_shape()[:2]
    from_noise = request.options._replace(start=0.0)
    if not _enlarges(engine, request):
        return denoise(engine, _given(engine, numbers, request, shape, blend), from_noise, advance)
    coarse = denoise(engine, _given(engine, numbers, request, trained, blend), from_noise, advance)
    options = _finer(request)
    given = _given(engine, numbers, request, shape, blend, FINE)
    time = options.first_time(len(engine.networks.alpha_bar))
    z_t = engine.networks.run_first(given._replace(c=enlarge(coarse, shape)), time=time)
    return denoise(engine, given, options, advance, z_t)


def evaluations(engine: Engine, request: Request) -> int:
    """Returns how many evaluations `generate` does."""
    return request.options.steps + (_finer(request).steps if _enlarges(engine, request) else 0)


def _enlarges(engine: Engine, request: Request) -> bool:
    """Returns whether a latent of the size of training is sampled first."""
    return bool(request.coarse) and engine.generated_shape(request.canvas) != engine.generated_shape()


def _finer(request: Request) -> Sampling:
    """Returns how sampling goes on from an enlarged latent."""
    steps = max(1, round(request.options.steps * request.coarse))
    return request.options._replace(start=request.coarse, steps=steps)


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
      progress: a function that is called with (done, total) after each part of the work, or None.
      wanted: numbers of latents.

    Yields:
      Pairs (the wanted numbers of a batch, their latents [n h w c] on the host).
    """
    h, w, _ = engine.generated_shape(request.canvas)
    size = engine.at_once(h * w, num)
    batches = [range(first, min(first + size, num)) for first in range(0, num, size)]
    batches = [batch for batch in batches if any(i in wanted for i in batch)]
    advance = counting(progress, len(batches) * evaluations(engine, request))
    for batch in batches:
        some = np.arange(batch.start, batch.start + size) % num  # the last batch is filled up
        found = np.asarray(generate(engine, some, request, advance=advance))
        there = [i for i in batch if i in wanted]
        yield there, found[[i - batch.start for i in there]]


def interpolate_each(
    engine: Engine, path: tuple[Sequence[int], int, int], request: Request, progress: Progress | None
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Samples latents on the way from seed to seed, in batches of a fixed size.

    Args:
      engine: as in `generate`.
      path: the seeds, the number of frames, and which latent of each seed.
      request: as in `generate`, whose seed does not count.
      progress: as in `generate_each`.

    Yields:
      Pairs (numbers of frames, their latents [n h w c] on the host).
    """
    seeds, frames, index = path
    h, w, _ = engine.generated_shape(request.canvas)
    size = engine.at_once(h * w, frames)
    along = np.arange(frames) * (len(seeds) - 1)  # in legs, times frames - 1
    legs, at_seed = along // (frames - 1), along % (frames - 1) == 0

    batches = []  # (leg, frames), those of a leg's seed by the program of `generate`, with its rounding
    for leg in range(len(seeds)):
        batches += [(leg, [frame]) for frame in np.flatnonzero((legs == leg) & at_seed)]
        rest = np.flatnonzero((legs == leg) & ~at_seed)
        batches += [(leg, rest[first : first + size]) for first in range(0, len(rest), size)]
    advance = counting(progress, len(batches) * evaluations(engine, request))
    for leg, there in batches:
        some, blend, numbers = request._replace(seed=seeds[leg]), None, [index]
        if not at_seed[there[0]]:
            shares = np.resize(along[there] - leg * (frames - 1), size) / (frames - 1)
            own, other = (engine.put(x[:, None, None, None]) for x in slerp_weights(shares))
            blend, numbers = Blend(seed_key(seeds[leg + 1]), own, other), [index] * size
        yield list(map(int, there)), np.asarray(generate(engine, numbers, some, blend, advance))[: len(there)]
