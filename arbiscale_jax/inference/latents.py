"""Samples latents of pictures, and latents from noise, in batches of fixed shapes."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.runtime.random import seed_key

from . import frames
from .engine import Engine, at_once
from .memory import LEAST
from .networks import Given
from .options import Sampling
from .plan import Part, Pile, Plan, make_piles, make_plan

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
    """Yields what `upscale_together` yields, one picture after another."""
    for found in upscale_together(engine, job, most):
        yield from found


def upscale_together(engine: Engine, job: Job, most: int | None = None) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Samples latents of pictures, all of which are computed together.

    Answer i of a picture depends on (seed, i) alone. The shapes of the arrays in which the pictures of a call are
    placed, and on an accelerator the number of arrays that are computed together, can change it by rounding.

    Args:
      engine: networks and weights.
      job: what is sampled; its progress is called with (done, total) after each batch.
      most: largest side of a window in input pixels; by default it depends on the free memory. If the device has too
        little memory, it is halved, with a warning.

    Yields:
      Lists of pairs (number of the picture, latents [len(numbers), h, w, c] on the host), for the pictures that are
      complete after a batch.

    Raises:
      UserError: if the model takes no condition.
    """
    engine.need_condition()
    engine.unet(conditioned=True)
    plan, left = make_plan(engine.config, job.options, most), list(range(len(job.images)))
    while left:
        some = list(left)
        try:
            for found in _upscale(engine, job._replace(images=[job.images[k] for k in some]), plan):
                left = [i for i in left if i not in {some[number] for number, _ in found}]
                yield [(some[number], z) for number, z in found]
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e) or plan.most <= LEAST:
                raise
            plan = plan._replace(most=max(LEAST, plan.most // 2))
            warnings.warn(
                f"The device has too little memory; going on in windows of at most {plan.most} pixels.", stacklevel=2
            )


def _upscale(engine: Engine, job: Job, plan: Plan) -> Iterator[list[tuple[int, np.ndarray]]]:
    shapes, answers = [image.shape[:2] for image in job.images], range(len(job.numbers))
    batches = []
    for pile in make_piles(engine.config, plan, shapes):
        units = [(sheet, k) for sheet in range(len(pile.sheets)) for k in answers]
        num = at_once(math.prod(plan.cells(pile.sheet)), len(units))
        batches += [(pile, num, units[first : first + num]) for first in range(0, len(units), num)]
    left = Counter(part.picture for pile, _, units in batches for sheet, _ in units for part in pile.sheets[sheet])
    sampler, canvases = _Sampler(engine, job, plan), {}
    for done, (pile, num, units) in enumerate(batches, 1):
        for z, (sheet, k) in zip(sampler.run(pile, num, units), units, strict=False):  # a batch may be filled up
            for part in pile.sheets[sheet]:
                if part.picture not in canvases:
                    size = plan.cells(plan.padded(shapes[part.picture]))
                    canvases[part.picture] = np.zeros((len(answers), *size, z.shape[-1]), np.float32)
                _paste(canvases[part.picture][k], z, plan, part)
                left[part.picture] -= 1
        if job.progress:
            job.progress(done, len(batches))
        found = [number for number in canvases if not left[number]]
        yield [(number, plan.crop(canvases.pop(number), shapes[number])) for number in found]


class _Sampler:
    """Computes batches of sheets; the condition is kept while the sheets stay the same."""

    def __init__(self, engine: Engine, job: Job, plan: Plan):
        self.engine, self.job, self.plan = engine, job, plan
        self.name, self.kept = None, None

    def run(self, pile: Pile, num: int, units: Sequence[tuple[int, int]]) -> np.ndarray:
        """Returns the latents [num h w c] of units (number of a sheet, which answer); the last one fills a batch up."""
        units = [*units, *[units[-1]] * (num - len(units))]
        networks, params, job = self.engine.networks, self.engine.params, self.job
        name = (id(pile), tuple(sheet for sheet, _ in units))
        if self.name != name or self.kept is None:
            inputs = _inputs(self.engine, self.plan, job.images, pile.sheet, [pile.sheets[sheet] for sheet in name[1]])
            inputs = self.engine.put(inputs)
            self.name, self.kept = name, (inputs, networks.run_condition(params, inputs.lr, inputs.frame))
        inputs, c = self.kept
        numbers = np.zeros((num, 1, 1, 3), np.int32)
        numbers[..., 0] = np.array([job.numbers[k] for _, k in units])[:, None, None]
        strength = self.engine.put(self.engine.strength(job.options.restore, num))
        given = Given(c, strength, inputs.cells + self.engine.put(numbers), seed_key(job.seed), inputs.frame)
        z = networks.run_answer(params, given, options=job.options.compiled)
        for _ in range(job.options.refine):
            z = networks.run_refine(params, z, c, inputs.frame, inputs.seen)
        return np.asarray(z)


def _inputs(engine: Engine, plan: Plan, images, sheet: tuple[int, int], sheets: Sequence[Sequence[Part]]) -> Inputs:
    """Lays parts on sheets; `sheet` is (height, width) of a sheet in input pixels."""
    ratio, grid, networks = plan.ratio, plan.cells(sheet), engine.networks
    lr, cells = np.zeros((len(sheets), *sheet, 3), np.float32), np.zeros((len(sheets), *grid, 3), np.int32)
    boxes, sizes = [], [grid] * len(sheets)
    for i, part in ((i, part) for i, parts in enumerate(sheets) for part in parts):
        image, (height, width) = images[part.picture], part.size
        rows, cols = (
            plan.padded_indices(side, window) for side, window in zip(image.shape, (part.rows, part.cols), strict=False)
        )
        lr[i, part.top : part.top + height, part.left : part.left + width] = to_floats(image[rows][:, cols])
        (h, w), (top, left) = plan.cells(part.size), plan.corner(part)
        first = [round((window.start - plan.border) * ratio) for window in (part.rows, part.cols)]
        own = cells[i, top : top + h, left : left + w]
        own[..., 1], own[..., 2] = np.arange(first[0], first[0] + h)[:, None], np.arange(first[1], first[1] + w)
        boxes.append((i, top, left, h, w))
        sizes[i] = (h, w)
    if plan.shared:
        inside = frames.rectangles((len(sheets), *grid), boxes)
        return Inputs(lr, cells, None if inside.all() else frames.Frame(inside, inside), None)
    frame = frames.single_frame(engine.config, sizes, grid)
    if frame is None:
        return Inputs(lr, cells, None, None)
    scale = (networks.factor, networks.subcells)
    return Inputs(lr, cells, frame, frames.seen(sizes, grid, networks.border, scale))


def _paste(canvas: np.ndarray, z: np.ndarray, plan: Plan, part: Part) -> None:
    """Adds the share of a part, whose latents lie in z [h w c], to the latents of a padded picture [h w c]."""
    (h, w), (top, left), (rows, cols) = plan.cells(part.size), plan.corner(part), (part.rows, part.cols)
    found = z[top : top + h, left : left + w]
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
    given = Given(None, engine.strength(options.restore, len(cells)), cells, seed_key(seed))
    return engine.networks.run_answer(params, given, options=options.compiled._replace(start=0.0))


def generate_all(engine: Engine, num: int, options: Sampling, seed: int, progress: Progress | None) -> jax.Array:
    """Samples the latents 0 .. num - 1 in batches of a fixed size; see `generate`."""
    h, w, _ = engine.generated_shape()
    size, found = at_once(h * w, num), []
    for first in range(0, num, size):
        some = np.arange(first, first + size) % num  # the last batch is filled up
        found.append(np.asarray(generate(engine, some, options, seed)))
        if progress:
            progress(min(first + size, num), num)
    return jnp.asarray(np.concatenate(found)[:num])
