"""Samples a picture in windows whose norms share the statistics of the whole picture.

Every network is applied twice to each window: once to gather moments (models/moments.py), and once with those of the
whole. z_t is one array for the whole picture, and the windows' predictions of eps are blended in each step (Bar-Tal et
al. 2023, "MultiDiffusion"). Attention sees one window at a time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax import diffusion, models
from arbiscale_jax.diffusion import Advance
from arbiscale_jax.runtime.random import seed_key

from .engine import Engine
from .given import Given
from .plan import Part, Plan, make_piles
from .shared_statistics import core, gather, shared_programs
from .sheets import Inputs, Job, cell_names, lay_out, paste


class _Window(NamedTuple):
    part: Part
    grid: tuple[int, int]  # latent cells of its array
    inputs: Inputs

    def cut(self, whole: np.ndarray, plan: Plan) -> np.ndarray:
        """Returns the part of a whole array of latents [h w c], in the window's own array [1 h w c]."""
        out = np.zeros((1, *self.grid, whole.shape[-1]), np.float32)
        (h, w), (top, left) = plan.cells(self.part.size), plan.origin(self.part)
        out[0, :h, :w] = whole[top : top + h, left : left + w]
        return out


def count_passes(engine: Engine, job: Job, plan: Plan, number: int) -> int:
    """Returns how often WholePicture applies a network to a window of a picture."""
    piles = make_piles(engine.config, plan, [job.images[number].shape])
    count = sum(len(pile.sheets) for pile in piles)
    return count * (2 + len(job.numbers) * (2 * job.options.steps + 3 * job.options.refine))


class WholePicture:
    """Samples latents of one picture.

    Args:
      engine: networks and weights.
      job: what is sampled; of its pictures, only one.
      plan: how the picture is cut up.
      number: the picture's number.
      advance: a function that is told how many windows a network was applied to.
    """

    def __init__(self, engine: Engine, job: Job, plan: Plan, number: int, advance: Advance):
        self.engine, self.job, self.plan, self.advance = engine, job, plan, advance
        self.image = job.images[number]
        self.size = plan.cells(plan.padded(self.image.shape))
        self.programs = shared_programs(engine.networks)
        self._piles = make_piles(engine.config, plan, [self.image.shape])

    @cached_property
    def _windows(self) -> list[_Window]:
        engine, plan = self.engine, self.plan
        return [
            _Window(part, plan.cells(pile.sheet), lay_out(engine, plan, [self.image], pile.sheet, [[part]]))
            for pile in self._piles
            for [part] in pile.sheets
        ]

    @cached_property
    def _groups(self) -> list[tuple[list[int], int]]:
        """Returns the numbers of windows that are computed together, and the size of their batch."""
        alike: dict[tuple, list[int]] = {}
        for i, window in enumerate(self._windows):
            alike.setdefault((window.grid, jax.tree.structure(window.inputs)), []).append(i)
        groups = []
        for (grid, _), numbers in alike.items():
            num = self.engine.at_once(math.prod(grid), len(numbers))
            groups += [(numbers[first : first + num], num) for first in range(0, len(numbers), num)]
        return groups

    def _batches(self, given: Sequence[tuple]) -> Iterator[tuple[list[int], tuple]]:
        """Yields (numbers of windows, their arguments in a batch), and tells of the windows when they are computed."""
        for numbers, num in self._groups:
            some = [given[i] for i in [*numbers, *[numbers[-1]] * (num - len(numbers))]]
            yield numbers, self.engine.put(jax.tree.map(lambda *parts: np.concatenate(parts), *some))
            self.advance(len(numbers))

    def sample(self) -> np.ndarray:
        """Returns latents of the padded picture, [answers h w c], on the host."""
        found = [(window.inputs.lr, window.inputs.frame) for window in self._windows]
        of_encoder = self._gather(self.programs.condition, found, self._cores("inside"))
        c = self._blend(self.programs.condition, found, of_encoder)
        answers = []
        for number in self.job.numbers:
            z = self._answer(number, c)
            for _ in range(self.job.options.refine):
                z = self._refine(z, c)
            answers.append(z)
        return np.stack(answers)

    def _answer(self, number: int, c: np.ndarray) -> np.ndarray:
        options, networks, engine = self.job.options, self.engine.networks, self.engine
        cells = cell_names([number], [-round(self.plan.border * self.plan.ratio)] * 2, self.size)
        strength, key = engine.strength(options.restore, 1), seed_key(self.job.seed)
        conditions = [window.cut(c, self.plan) for window in self._windows]
        counted = self._cores("padded")

        def eps_fn(z_t, t):
            whole = np.asarray(z_t)[0]
            given = [
                (window.cut(whole, self.plan), t, condition, strength, window.inputs.frame)
                for window, condition in zip(self._windows, conditions, strict=True)
            ]
            shared = self._gather(self.programs.eps, given, counted)
            return jnp.asarray(self._blend(self.programs.eps, given, shared)[None])

        def draw(step):
            return diffusion.cell_noise(key, cells, step + 1, c.shape[-1])

        z_T = networks.run_first(
            Given(jnp.asarray(c[None]), strength, cells, key), time=options.first_time(len(networks.alpha_bar))
        )
        found = diffusion.sample_eagerly(
            eps_fn,
            z_T,
            networks.alpha_bar,
            steps=options.steps,
            sampler=options.sampler,
            start=options.start or 1.0,
            noise=diffusion.Noise(options.eta, draw),
        )
        return np.asarray(found)[0]

    def _refine(self, z: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Corrects latents [h w c] by back-projection, for which D's moments and those of E on the render count."""
        given, seen, border = [], [], self.engine.networks.border
        for window in self._windows:
            own, frame, how = window.cut(z, self.plan), window.inputs.frame, window.inputs.seen
            given.append((own, window.cut(c, self.plan), frame, how))
            seen.append((own,) if how is None else (own[:, how.rows[0]][:, :, how.cols[0]], how.inside))
        grown = [[side + 2 * border for side in window.grid] for window in self._windows]
        counted = [
            core(grid, (window.part.rows, window.part.cols), self.plan.ratio, border)
            & (True if window.inputs.seen is None else window.inputs.seen.inside)
            for grid, window in zip(grown, self._windows, strict=True)
        ]
        of_decoder = self._gather(self.programs.features, seen, counted)
        of_encoder = self._gather(self.programs.refine, given, self._cores("inside"), of_decoder)
        return self._blend(self.programs.refine, given, {**of_encoder, **of_decoder})

    def _cores(self, mask: str) -> list[np.ndarray]:
        found = []
        for window in self._windows:
            mine = core(window.grid, (window.part.rows, window.part.cols), self.plan.ratio)
            frame = window.inputs.frame
            found.append(mine if frame is None else mine & getattr(frame, mask))
        return found

    def _gather(
        self,
        program: Callable,
        given: Sequence[tuple],
        counted: Sequence[np.ndarray],
        known: models.Statistics | None = None,
    ) -> models.Statistics:
        """Returns the moments of the whole picture, as `gather` does."""

        def calls():
            for numbers, (mask, args) in self._batches(list(zip(counted, given, strict=True))):
                yield mask, args, len(numbers)

        return gather(program, self.engine.params, calls(), known)

    def _blend(self, program: Callable, given: Sequence[tuple], shared: models.Statistics) -> np.ndarray:
        """Returns the windows' results [1 h w c], computed with the moments `shared`, as one array [h w c]."""
        canvas = np.zeros((*self.size, self.engine.config["first_stage"]["z_channels"]), np.float32)
        for numbers, args in self._batches(given):
            found = np.asarray(program(shared, None, self.engine.params, *args)[0])
            for i, z in zip(numbers, found, strict=False):  # a batch may be filled up
                paste(canvas, z, self.plan, self._windows[i].part)
        return canvas
