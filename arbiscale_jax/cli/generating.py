"""Generates images: it samples one latent per image, in batches, and renders it at every size."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from arbiscale_jax.cli import destination, files, picture_files, result_names, sampling, sizes, upscaling
from arbiscale_jax.cli.destination import MAKE, Destination, Result
from arbiscale_jax.cli.journal import Entry, Journal
from arbiscale_jax.cli.overlap import writing
from arbiscale_jax.runtime.progress import counted_progress

PATTERN = "{stem}_{seed}_{index:03d}_{size}"  # the default of --name
FIELDS = [name for name in result_names.FIELDS if name not in result_names.OF_INPUTS]
STEM = "sample"
FORMAT = "png"  # the default of --format


def find_sizes(opts: dict, default: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns the (height, width) of each image's renders, or the default; UserError if one is too large."""
    wanted = sizes.parse_sizes(opts["sizes"], "--sizes") if opts["sizes"] else [default]
    for size in wanted:
        sizes.check_output(size, opts["max-output-pixels"])
    return wanted


def name_results(opts: dict, wanted: list[tuple[int, int]], where: Destination, key: str) -> list[list[Result]]:
    """Describes the results of each image, one for each size."""

    def describe(i: int, size: tuple[int, int]) -> Result:
        name = name_result(opts, where, (PATTERN, FORMAT), size, stem=STEM, index=i, seed=opts["seed"])
        return Result(name, None, Entry(key, None, i, (0, 0), size))

    return [[describe(i, size) for size in wanted] for i in range(opts["num"])]


def name_result(
    opts: dict, where: Destination, defaults: tuple[str, str], size: tuple[int, int], **fields: str | int
) -> str:
    """Returns the name of one result: the one that is asked for, or --name with the fields filled in.

    Args:
      opts: the values of all flags.
      where: where the results go.
      defaults: the pattern and the format for which --name and --format stand where they are given.
      size: (height, width) of the result.
      **fields: what else a name may hold.
    """
    (pattern, kind), (height, width) = defaults, size
    fields |= dict(size=f"{height}x{width}", height=height, width=width, model=Path(opts["model"]).resolve().name)
    chosen = pattern if opts["name"] is None else opts["name"]
    return where.single or result_names.format_name(chosen, fields, picture_files.CHOICES[opts["format"] or kind])


def decide(opts: dict, where: Destination, results: list[list[Result]], journal: Journal) -> list[str]:
    """Returns the action for each result, in one list, after all checks; errors are those of `destination`."""
    flat = [one for some in results for one in some]
    destination.check(where, flat, [])
    for one in flat:
        picture_files.check_result(where.folder / one.name, one.entry.size, opts)
    actions = destination.decide(where, flat, journal, opts)
    left = [one.entry for one, action in zip(flat, actions, strict=True) if action == MAKE]
    files.check_output_folder(where.folder, sum(3 * one.size[0] * one.size[1] * one.frames for one in left))
    return actions


def run(model, opts: dict, where: Destination, todo: list[list[Result]], journal: Journal) -> None:
    """Generates the images and writes those results that are to be made.

    Args:
      model: the model.
      opts: the values of all flags.
      where: where the results go.
      todo: the results of each image that are to be made; an image may have none.
      journal: where finished results are recorded.
    """
    journal.start()
    with counted_progress(opts["num"] + sum(map(len, todo))) as advance, writing() as write:
        advance(0, "denoising")
        done = upscaling.moving(advance, opts["num"])
        wanted = {i for i, results in enumerate(todo) if results}
        given = dict(seed=opts["seed"], progress=done, **sampling.given(opts))
        for numbers, latents in model.generate_each(opts["num"], wanted, **given):
            for i, z in zip(numbers, latents, strict=True):
                viewer = model.viewer(z)  # it applies D once for all sizes
                for one in todo[i]:
                    size = one.entry.size
                    advance(0, f"image {i}: rendering {size[0]} x {size[1]}")
                    write(viewer.rows(size), partial(_write, opts, where.folder / one.name, one, journal))
                    advance(1)
            advance(0, "denoising")


def _write(opts: dict, path: Path, result: Result, journal: Journal, rows: Iterator[np.ndarray]) -> None:
    """Writes a result, and records it."""
    with journal.recorded(path, result.name, result.entry):
        picture_files.write(path, result.entry.size, rows, opts)
