"""Samples latents of pictures in batches of fixed shapes."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from arbiscale_jax.diffusion import Advance
from arbiscale_jax.runtime.random import seed_key

from .engine import Engine
from .given import Given
from .memory import LEAST
from .plan import Pile, Plan, make_piles, make_plan
from .reverse_process import denoise
from .sheets import Inputs, Job, counting, lay_out, paste
from .whole_picture import WholePicture, count_passes


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
      job: what is sampled; its progress is called with (done, total) after each part of the work.
      most: largest side of a window in input pixels; by default it depends on the free memory. If the device has too
        little memory, it is halved and batches become smaller, with a warning.

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
            smaller = engine.thriftier(), plan._replace(most=min(plan.most, max(LEAST, plan.most // 2)))
            if "RESOURCE_EXHAUSTED" not in str(e) or smaller == (engine, plan):
                raise
            engine, plan = smaller
            warnings.warn(
                f"The device has too little memory; going on in windows of at most {plan.most} pixels.", stacklevel=2
            )


def _upscale(engine: Engine, job: Job, plan: Plan) -> Iterator[list[tuple[int, np.ndarray]]]:
    shapes = [image.shape[:2] for image in job.images]
    apart = [i for i, shape in enumerate(shapes) if job.options.statistics == "whole" and plan.blends(shape)]
    rest = [i for i in range(len(shapes)) if i not in set(apart)]
    batches = list(_batches(engine, plan, [shapes[i] for i in rest], len(job.numbers)))
    total = len(batches) * _passes(job) + sum(count_passes(engine, job, plan, i) for i in apart)
    advance = counting(job.progress, total)
    some = job._replace(images=[job.images[i] for i in rest])
    for found in _upscale_batches(_Sampler(engine, some, plan, advance), batches):
        yield [(rest[number], z) for number, z in found]
    for i in apart:
        yield [(i, plan.crop(WholePicture(engine, job, plan, i, advance).sample(), shapes[i]))]


Batch = tuple[Pile, int, list[tuple[int, int]]]  # how many units are computed together, and which: (sheet, answer)


def _batches(engine: Engine, plan: Plan, shapes: Sequence[Sequence[int]], answers: int) -> Iterator[Batch]:
    for pile in make_piles(engine.config, plan, shapes):
        units = [(sheet, k) for sheet in range(len(pile.sheets)) for k in range(answers)]
        num = engine.at_once(math.prod(plan.cells(pile.sheet)), len(units))
        for first in range(0, len(units), num):
            yield pile, num, units[first : first + num]


def _passes(job: Job) -> int:
    """Returns how many parts of the work for a batch are told of: its condition, evaluations and refinements."""
    return 1 + job.options.steps + job.options.refine


def _upscale_batches(sampler: "_Sampler", batches: Sequence[Batch]) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Yields the pictures that are complete after each batch, with their latents."""
    left = Counter(part.picture for pile, _, units in batches for sheet, _ in units for part in pile.sheets[sheet])
    job, plan, canvases = sampler.job, sampler.plan, {}
    for pile, num, units in batches:
        for z, (sheet, k) in zip(sampler.run(pile, num, units), units, strict=False):  # a batch may be filled up
            for part in pile.sheets[sheet]:
                if part.picture not in canvases:
                    size = plan.cells(plan.padded(job.images[part.picture].shape))
                    canvases[part.picture] = np.zeros((len(job.numbers), *size, z.shape[-1]), np.float32)
                paste(canvases[part.picture][k], z, plan, part)
                left[part.picture] -= 1
        found = [number for number in canvases if not left[number]]
        yield [(number, plan.crop(canvases.pop(number), job.images[number].shape)) for number in found]


class _Sampler:
    """Computes batches of sheets; the condition is kept while the sheets stay the same.

    `advance` is called with the number of parts of the work, of those that `_passes` counts, that were done.
    """

    def __init__(self, engine: Engine, job: Job, plan: Plan, advance: Advance):
        self.engine, self.job, self.plan, self.advance = engine, job, plan, advance
        self.name, self.kept = None, None

    def run(self, pile: Pile, num: int, units: Sequence[tuple[int, int]]) -> np.ndarray:
        """Returns the latents [num h w c] of units (number of a sheet, which answer); the last one fills a batch up."""
        units = [*units, *[units[-1]] * (num - len(units))]
        networks, params, job = self.engine.networks, self.engine.params, self.job
        inputs, c = self._condition(pile, [sheet for sheet, _ in units])
        self.advance(1)
        numbers = np.zeros((num, 1, 1, 3), np.int32)
        numbers[..., 0] = np.array([job.numbers[k] for _, k in units])[:, None, None]
        strength = self.engine.put(self.engine.strength(job.options.restore, num))
        given = Given(c, strength, inputs.cells + self.engine.put(numbers), seed_key(job.seed), inputs.frame)
        z = denoise(self.engine, given, job.options, self.advance)
        for _ in range(job.options.refine):
            z = networks.run_refine(params, z, c, inputs.frame, inputs.seen)
            self.advance(1)
        return np.asarray(z)

    def _condition(self, pile: Pile, sheets: Sequence[int]) -> tuple[Inputs, jax.Array]:
        """Returns the arrays of sheets, and the condition."""
        name = (id(pile), tuple(sheets))
        if self.name != name or self.kept is None:
            inputs = lay_out(self.engine, self.plan, self.job.images, pile.sheet, [pile.sheets[k] for k in sheets])
            inputs = self.engine.put(inputs)
            c = self.engine.networks.run_condition(self.engine.params, inputs.lr, inputs.frame)
            self.name, self.kept = name, (inputs, c)
        return self.kept
