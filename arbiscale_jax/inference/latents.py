"""Samples latents of pictures, and latents from noise, in batches of fixed shapes."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import frames
from .engine import Engine, at_once
from .memory import LEAST
from .networks import Given
from .options import Sampling
from .plan import Part, Plan, make_piles, make_plan

Progress = Callable[[int, int], object]


class Inputs(NamedTuple):
    """Holds the arrays of one batch of sheets."""

    lr: np.ndarray  # [b H W 3] in [-1, 1], zero outside the pictures
    cells: np.ndarray  # names of the latent cells, int32 [b h w 3]; the number of the answer is 0
    frame: frames.Frame | None  # None if every sheet is filled
    seen: frames.Seen | None  # for back-projection in frames


class Job(NamedTuple):
    """Says what is sampled, and how."""

    images: Sequence[np.ndarray]  # pictures uint8 or uint16 [h, w, 3]
    numbers: Sequence[int]  # numbers of the answers for each picture
    options: Sampling
    seed: int
    progress: Progress | None = None


def to_floats(image: np.ndarray) -> np.ndarray:
    """Maps uint8 or uint16 pixels to float32 in [-1, 1]."""
    return image.astype(np.float32) * np.float32(2 / np.iinfo(image.dtype).max) - 1


def upscale(engine: Engine, job: Job, most: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Samples latents of pictures, all of which are computed together.

    Answer i of a picture depends on (seed, i) alone. The shapes of the arrays in which the pictures of a call are
    placed can change it by rounding.

    Args:
      engine: networks and weights.
      job: what is sampled; its progress is called with (done, total) after each batch of each answer.
      most: largest side of a window in input pixels; by default it depends on the free memory. If the device has too
        little memory, it is halved, with a warning.

    Yields:
      Pairs (number of the picture, latents [len(numbers), h, w, c] on the host), each as soon as it is complete.

    Raises:
      UserError: if the model takes no condition.
    """
    engine.need_condition()
    engine.unet(conditioned=True)
    plan, left = make_plan(engine.config, job.options, most), list(range(len(job.images)))
    while left:
        some = list(left)
        try:
            for i, z in _upscale(engine, job._replace(images=[job.images[k] for k in some]), plan):
                left.remove(some[i])
                yield some[i], z
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e) or plan.most <= LEAST:
                raise
            plan = plan._replace(most=max(LEAST, plan.most // 2))
            warnings.warn(
                f"The device has too little memory; going on in windows of at most {plan.most} pixels.", stacklevel=2
            )


def _upscale(engine: Engine, job: Job, plan: Plan) -> Iterator[tuple[int, np.ndarray]]:
    shapes = [image.shape[:2] for image in job.images]
    piles = [(pile, at_once(_area(plan, pile.sheet))) for pile in make_piles(engine.config, plan, shapes)]
    left = [sum(part.picture == i for pile, _ in piles for part in pile.parts) for i in range(len(shapes))]
    total, done = sum(pile.count(num) for pile, num in piles) * len(job.numbers), 0
    canvases: dict[int, np.ndarray] = {}
    for pile, num in piles:
        for batch in pile.batches(num):
            inputs = _inputs(engine, plan, job.images, batch, (num, *pile.sheet))
            for k, z in enumerate(_answers(engine, job, inputs)):
                for part, place in batch:
                    if part.picture not in canvases:
                        size = plan.cells(plan.padded(shapes[part.picture]))
                        canvases[part.picture] = np.zeros((len(job.numbers), *size, z.shape[-1]), np.float32)
                    _paste(canvases[part.picture][k], z, plan, part, place)
                done += 1
                if job.progress:
                    job.progress(done, total)
            for part, _ in batch:
                left[part.picture] -= 1
                if not left[part.picture]:
                    low = round(plan.border * plan.ratio)
                    height, width = (max(1, round(side * plan.ratio)) for side in shapes[part.picture])
                    yield part.picture, canvases.pop(part.picture)[:, low : low + height, low : low + width]


def _area(plan: Plan, sheet: tuple[int, int]) -> int:
    height, width = plan.cells(sheet)
    return height * width


def _inputs(engine: Engine, plan: Plan, images, batch: Sequence[tuple[Part, frames.Place]], shape) -> Inputs:
    """Lays the parts of a batch on sheets; `shape` is (number of sheets, height, width) in pixels."""
    ratio, sheet = plan.ratio, plan.cells(shape[1:])
    lr, cells = np.zeros((*shape, 3), np.float32), np.zeros((shape[0], *sheet, 3), np.int32)
    boxes, sizes = [], [sheet] * shape[0]
    for part, at in batch:
        image, (height, width) = images[part.picture], part.size
        rows, cols = (
            plan.padded_indices(side, window) for side, window in zip(image.shape, (part.rows, part.cols), strict=False)
        )
        lr[at.sheet, at.top : at.top + height, at.left : at.left + width] = to_floats(image[rows][:, cols])
        h, w = plan.cells(part.size)
        top, left = round(at.top * ratio), round(at.left * ratio)
        first = [round((window.start - plan.border) * ratio) for window in (part.rows, part.cols)]
        own = cells[at.sheet, top : top + h, left : left + w]
        own[..., 1], own[..., 2] = np.arange(first[0], first[0] + h)[:, None], np.arange(first[1], first[1] + w)
        boxes.append((at.sheet, top, left, h, w))
        sizes[at.sheet] = (h, w)
    if plan.shared:
        inside = frames.rectangles((shape[0], *sheet), boxes)
        return Inputs(lr, cells, None if inside.all() else frames.Frame(inside, inside), None)
    frame, networks = frames.single_frame(engine.config, sizes, sheet), engine.networks
    if frame is None:
        return Inputs(lr, cells, None, None)
    scale = (networks.factor, networks.subcells)
    return Inputs(lr, cells, frame, frames.seen(sizes, sheet, networks.border, scale))


def _answers(engine: Engine, job: Job, inputs: Inputs) -> Iterator[np.ndarray]:
    """Yields the latents [b h w c] of each answer for one batch of sheets."""
    networks, params = engine.networks, engine.params
    inputs = engine.put(inputs)
    c, key = networks.run_condition(params, inputs.lr, inputs.frame), jax.random.key(job.seed)
    strength = engine.strength(job.options.restore, len(c))
    for number in job.numbers:
        named = inputs.cells + np.array([[[[number, 0, 0]]]], np.int32)
        given = Given(c, strength, named, key, inputs.frame)
        z = networks.run_answer(params, given, options=job.options._replace(refine=0, restore=0.0))
        for _ in range(job.options.refine):
            z = networks.run_refine(params, z, c, inputs.frame, inputs.seen)
        yield np.asarray(z)


def _paste(canvas: np.ndarray, z: np.ndarray, plan: Plan, part: Part, place: frames.Place) -> None:
    """Adds the share of a part, whose latents lie in z [b h w c], to the latents of a padded picture [h w c]."""
    h, w = plan.cells(part.size)
    top, left = round(place.top * plan.ratio), round(place.left * plan.ratio)
    rows, cols = part.rows, part.cols
    found = z[place.sheet, top : top + h, left : left + w]
    if (h, w) == canvas.shape[:2]:
        canvas[:] = found
        return
    y, x = round(rows.start * plan.ratio), round(cols.start * plan.ratio)
    of_row, of_col = (one.weights(one.start + (np.arange(n) + 0.5) / plan.ratio) for one, n in ((rows, h), (cols, w)))
    canvas[y : y + h, x : x + w] += of_row[:, None, None] * of_col[None, :, None] * found


def generate(engine: Engine, numbers: Sequence[int] | np.ndarray, options: Sampling, seed: int) -> jax.Array:
    """Samples the latents of these numbers from noise, in one batch.

    Args:
      engine: networks and weights; the batch is computed where engine.put places it.
      numbers: the numbers of the latents; number i depends on (seed, i) alone, up to rounding by the batch's size.
      options: how latents are sampled.
      seed: the seed of all noise.

    Returns:
      The latents [n, h, w, c].

    Raises:
      UserError: if the model needs a condition, or has no U-Net.
    """
    h, w, _ = engine.generated_shape()
    params = engine.unet(conditioned=False)
    names = np.meshgrid(np.asarray(numbers, np.int32), np.arange(h), np.arange(w), indexing="ij")
    cells = engine.put(np.stack(names, axis=-1).astype(np.int32))
    given = Given(None, engine.strength(options.restore, len(cells)), cells, jax.random.key(seed))
    return engine.networks.run_answer(params, given, options=options._replace(start=0.0, refine=0, restore=0.0))


def generate_all(engine: Engine, num: int, options: Sampling, seed: int, progress: Progress | None) -> jax.Array:
    """Samples the latents 0 .. num - 1 in batches of a fixed size; see `generate`."""
    h, w, _ = engine.generated_shape()
    size, found = at_once(h * w), []
    for first in range(0, num, size):
        some = np.arange(first, first + size) % num  # the last batch is filled up
        found.append(np.asarray(generate(engine, some, options, seed)))
        if progress:
            progress(min(first + size, num), num)
    return jnp.asarray(np.concatenate(found)[:num])
