"""Upscales files: it computes pictures in groups, and writes each result as soon as it is there.

The next group is read, and results are encoded, while the model computes. The frames of one file form a group of their
own, and are computed in parts of it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from arbiscale_jax import images
from arbiscale_jax.cli import picture_files, program, sampling
from arbiscale_jax.cli.destination import AGAIN, MAKE, Result
from arbiscale_jax.cli.journal import Journal
from arbiscale_jax.cli.overlap import Write, read_ahead, writing
from arbiscale_jax.cli.planning import Input, Plan, shown
from arbiscale_jax.cli.sizes import parse_target
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.progress import counted_progress

GROUP = (4_000_000, 64)  # pictures are computed together up to so many pixels and files
GROUP_ON_CPU = (250_000, 16)  # a CPU computes sheets one by one, so that little is won, and less is lost at a stop
DENOISING = 16.0  # the work for a pixel of an input, where that for a pixel of an output is 1; for the bar alone


class _Unreadable(UserError):
    """Says that a file that was read before cannot be read any more."""


class Work(NamedTuple):
    """Holds what upscaling a group needs."""

    model: Any
    opts: dict  # the values of all flags
    plan: Plan
    journal: Journal
    most: tuple[int, int]  # pixels and pictures that are computed together
    advance: Callable[..., None]  # moves the bar
    write: Write  # writes a result in a thread


def groups(plan: Plan, most: tuple[int, int]) -> Iterator[list[int]]:
    """Divides the numbers of pictures into groups of up to `most` (pixels, files) that are computed together.

    A picture of which all results were made by an earlier start of the command keeps its place: how pictures are
    grouped can change results by rounding, and they are to be those of a command that was not stopped.
    """
    group: list[int] = []
    for number, actions in enumerate(plan.actions):
        if not {MAKE, AGAIN} & set(actions):
            continue
        if plan.inputs[number].frames > 1:
            yield [number]
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
    lost: list[str] = []
    journal.start()
    total = sum(_work(plan, number) for group in todo for number in group)
    with counted_progress(total) as advance, writing() as write:
        work = Work(model, opts, plan, journal, most, advance, write)
        for group, pictures in read_ahead(todo, partial(_read_group, plan, opts)):
            first = plan.inputs[group[0]]
            others = f" and {len(group) - 1} more" if len(group) > 1 else ""
            advance(0, f"{first.found.path.name}{others}: to {first.size[0]} x {first.size[1]}")
            some = _upscale_group(work, group, pictures) if first.frames == 1 else _upscale_frames(work, group)
            for said in some:
                lost.append(said)
                program.say_left_out(said)
    return lost


def _read_group(plan: Plan, opts: dict, group: list[int]) -> list[images.Picture | UserError]:
    """Returns the pictures of a group, or why one cannot be read; of a file with frames nothing."""
    return [_read(plan.inputs[number], opts) for number in group if plan.inputs[number].frames == 1]


def _upscale_group(work: Work, group: list[int], found: Sequence[images.Picture | UserError]) -> Iterator[str]:
    """Upscales pictures together, and yields sentences about those that could not be read any more."""
    yield from (str(one) for one in found if isinstance(one, UserError))
    there = [(number, one) for number, one in zip(group, found, strict=True) if not isinstance(one, UserError)]
    if not there:
        return
    plan, read, pictures = work.plan, *zip(*there, strict=True)
    sizes = [plan.inputs[number].size for number in read]
    for k, answer, rows in _answers(work, group[0], [one.pixels for one in pictures], sizes):
        if plan.actions[read[k]][answer] == MAKE:
            take = partial(_write, work, plan.results[read[k]][answer], sizes[k], pictures[k].metadata)
            work.write(_counted(rows, work.advance), take)


def _write(
    work: Work, result: Result, size: tuple[int, int], metadata: images.Metadata, rows: Iterator[np.ndarray]
) -> None:
    """Writes a result, and records it."""
    path = work.plan.where.folder / result.name
    with work.journal.recorded(path, result.name, result.entry):
        picture_files.write(path, shown(size, work.plan.box), rows, work.opts, metadata)


def _upscale_frames(work: Work, group: list[int]) -> Iterator[str]:
    """Upscales the frames of one file, and yields a sentence if they cannot be read any more."""
    [number] = group
    one, path = work.plan.inputs[number], work.plan.inputs[number].found.path
    try:
        source = picture_files.read_frames(path, work.opts)
    except UserError as e:
        yield str(e)
        return
    try:
        made = _enlarged(work, number, source)
    except _Unreadable as e:
        yield str(e)
        return
    for result, action, frames in zip(work.plan.results[number], work.plan.actions[number], made, strict=True):
        if action != MAKE:
            continue
        if len(frames) != one.frames:
            yield f"{path} was changed while the command ran; upscale it again."
            return
        where = work.plan.where.folder / result.name
        with work.journal.recorded(where, result.name, result.entry):
            picture_files.write_frames(where, frames, source.loop, work.opts)


def _enlarged(work: Work, number: int, source: images.Frames) -> list[list[images.Frame]]:
    """Upscales the frames of one file in parts, and returns those of each answer that is to be made.

    All parts have the same number of frames, so that a compiled program serves all; the last is filled up.

    Raises:
      _Unreadable: if a frame cannot be decoded.
    """
    one, actions, target = work.plan.inputs[number], work.plan.actions[number], parse_target(work.opts)
    most = max(1, min(work.most[1], work.most[0] // (one.shape[0] * one.shape[1])))
    length = -(-one.frames // -(-one.frames // most))
    made: list[dict[int, images.Frame]] = [{} for _ in actions]
    for start, frames in zip(itertools.count(step=length), _parts(source, length), strict=False):
        pixels = [frame.picture.pixels for frame in frames] + [frames[-1].picture.pixels] * (length - len(frames))
        sizes = [target.of(some.shape[:2], str(one.found.path)) for some in pixels]
        for k, answer, rows in _answers(work, number, pixels, sizes):
            if actions[answer] == MAKE and k < len(frames):
                enlarged = np.concatenate(list(_counted(rows, work.advance)))
                picture = images.Picture(enlarged, frames[k].picture.metadata)
                made[answer][start + k] = images.Frame(picture, frames[k].duration)
    return [[some[k] for k in sorted(some)] for some in made]


def _parts(source: images.Frames, length: int) -> Iterator[list[images.Frame]]:
    """Yields up to `length` frames at a time, and raises _Unreadable if one cannot be decoded."""
    reader = iter(source)
    try:
        while frames := list(itertools.islice(reader, length)):
            yield frames
    except UserError as e:
        raise _Unreadable(str(e)) from e


def _answers(work: Work, first: int, pixels: list[np.ndarray], sizes: list[tuple[int, int]]):
    """Upscales pictures with the options of the command; yields what Model.upscale_each does."""
    answers = len(work.plan.results[first])
    share = sum(DENOISING * answers * some.shape[0] * some.shape[1] for some in pixels)
    return work.model.upscale_each(
        pixels,
        sizes,
        answers,
        box=work.plan.box,
        progress=moving(work.advance, share),
        seed=work.opts["seed"],
        **sampling.given(work.opts),
    )


def _read(one: Input, opts: dict) -> images.Picture | UserError:
    """Returns the picture, or why it cannot be read any more or is another one than when the plan was made."""
    if one.picture is not None:
        return one.picture
    try:
        picture = picture_files.read(one.found.path, opts)
    except UserError as e:
        return e
    if picture.pixels.shape[:2] != one.shape:
        return UserError(f"{one.found.path} was changed while the command ran; upscale it again.")
    return picture


def _work(plan: Plan, number: int) -> float:
    """Returns the steps of the bar for one picture."""
    (height, width), (old_height, old_width) = shown(plan.inputs[number].size, plan.box), plan.inputs[number].shape
    made = sum(action == MAKE for action in plan.actions[number])
    of_a_frame = DENOISING * len(plan.actions[number]) * old_height * old_width + made * height * width
    return plan.inputs[number].frames * of_a_frame


def _counted(rows: Iterator[np.ndarray], advance: Callable[..., None]) -> Iterator[np.ndarray]:
    """Yields the rows and moves the bar."""
    for some in rows:
        yield some
        advance(float(some.shape[0] * some.shape[1]))


def moving(advance: Callable[..., None], steps: float) -> Callable[[int, int], None]:
    """Returns a function (done, total) that moves the bar by `steps` steps in all, as the model calls it."""
    shown = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        share = max(shown, done / total)  # where memory is too little, the model begins again in smaller windows
        advance(steps * (share - shown))
        shown = share

    return progress
