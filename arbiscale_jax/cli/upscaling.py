"""Upscales files: it computes pictures in groups, and writes each result as soon as it is there."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from arbiscale_jax.cli import picture_files, program, sampling
from arbiscale_jax.cli.destination import AGAIN, MAKE
from arbiscale_jax.cli.journal import Journal
from arbiscale_jax.cli.planning import Input, Plan, shown
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.progress import counted_progress

GROUP = (4_000_000, 64)  # pictures are computed together up to so many pixels and files
GROUP_ON_CPU = (250_000, 16)  # a CPU computes sheets one by one, so that little is won, and less is lost at a stop
DENOISING = 16.0  # the work for a pixel of an input, where that for a pixel of an output is 1; for the bar alone


def groups(plan: Plan, most: tuple[int, int]) -> Iterator[list[int]]:
    """Divides the numbers of pictures into groups of up to `most` (pixels, files) that are computed together.

    A picture of which all results were made by an earlier start of the command keeps its place: how pictures are
    grouped can change results by rounding, and they are to be those of a command that was not stopped.
    """
    group: list[int] = []
    for number, actions in enumerate(plan.actions):
        if not {MAKE, AGAIN} & set(actions):
            continue
        pixels = sum(plan.inputs[other].shape[0] * plan.inputs[other].shape[1] for other in (*group, number))
        if group and (pixels > most[0] or len(group) == most[1]):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def run(model, opts: dict, plan: Plan, journal: Journal) -> list[str]:
    """Upscales the pictures and writes the results.

    Args:
      model: the model.
      opts: the values of all flags.
      plan: what is to be done.
      journal: where finished results are recorded.

    Returns:
      Sentences about pictures that could not be read any more, which are also printed.
    """
    most = GROUP_ON_CPU if program.on_cpu() else GROUP
    todo = [group for group in groups(plan, most) if any(MAKE in plan.actions[number] for number in group)]
    options: dict[str, Any] = {"seed": opts["seed"], **sampling.given(opts)}
    lost: list[str] = []
    journal.start()
    with counted_progress(sum(_work(plan, number) for group in todo for number in group)) as advance:
        for group in todo:
            first = plan.inputs[group[0]]
            others = f" and {len(group) - 1} more" if len(group) > 1 else ""
            advance(0, f"{first.found.path.name}{others}: to {first.size[0]} x {first.size[1]}")
            pictures, read = [], []
            for number in group:
                try:
                    pictures.append(_read(plan.inputs[number], opts))
                    read.append(number)
                except UserError as e:
                    lost.append(str(e))
                    program.say_left_out(str(e))
            answers = len(plan.results[group[0]])
            share = sum(DENOISING * answers * image.shape[0] * image.shape[1] for image in pictures)
            made = model.upscale_each(
                pictures,
                [plan.inputs[number].size for number in read],
                answers,
                box=plan.box,
                progress=partial(advance_by, advance, share),
                **options,
            )
            for k, answer, rows in made if pictures else ():
                _write(plan, journal, opts, (read[k], answer), _counted(rows, advance))
    return lost


def _read(one: Input, opts: dict) -> np.ndarray:
    """Returns the picture, and raises UserError if it cannot be read or is another one than when the plan was made."""
    if one.image is not None:
        return one.image
    image = picture_files.read(one.found.path, opts)
    if image.shape[:2] != one.shape:
        raise UserError(f"{one.found.path} was changed while the command ran; upscale it again.")
    return image


def _write(plan: Plan, journal: Journal, opts: dict, which: tuple[int, int], rows: Iterator[np.ndarray]) -> None:
    """Writes a result, of the picture and the answer with the numbers `which`, unless it is there already."""
    number, answer = which
    result, size = plan.results[number][answer], shown(plan.inputs[number].size, plan.box)
    if plan.actions[number][answer] != MAKE:
        return
    path = plan.where.folder / result.name
    journal.begin(result.name, result.entry)
    picture_files.write(path, size, rows, opts)
    journal.done(result.name, result.entry._replace(written=path.stat().st_size))


def _work(plan: Plan, number: int) -> float:
    """Returns the steps of the bar for one picture."""
    (height, width), (old_height, old_width) = shown(plan.inputs[number].size, plan.box), plan.inputs[number].shape
    made = sum(action == MAKE for action in plan.actions[number])
    return DENOISING * len(plan.actions[number]) * old_height * old_width + made * height * width


def _counted(rows: Iterator[np.ndarray], advance: Callable[..., None]) -> Iterator[np.ndarray]:
    """Yields the rows and moves the bar."""
    for some in rows:
        yield some
        advance(float(some.shape[0] * some.shape[1]))


def advance_by(advance: Callable[..., None], steps: float, done: int, total: int) -> None:
    """Moves the bar when the model calls progress(done, total), in all by `steps` steps."""
    advance(steps / total)
