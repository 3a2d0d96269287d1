"""Generates pictures between those of several seeds, as one animation for each size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arbiscale_jax.cli import generating, picture_files, sampling, sizes, upscaling
from arbiscale_jax.cli.destination import Destination, Result
from arbiscale_jax.cli.journal import Entry, Journal
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.progress import counted_progress

PATTERN, STEM = "{stem}_{seed}_{size}", "interpolation"  # the default of --name
FRAMES = 24  # the default of --frames
FORMAT = "webp"  # the default of --format


def parse_seeds(text: str) -> list[int]:
    """Reads the seeds of --interpolate, two at least, separated by commas; UserError if the text has another form."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        raise UserError(f"--interpolate={text} names no seeds; give two or more, such as --interpolate=0,7.")
    return list(map(int, parts))


def settle(opts: dict) -> dict:
    """Returns the values of all flags with the seeds and the frames of an interpolation in place of their defaults.

    Raises:
      UserError: if the seeds are none, there are fewer frames than seeds, or the format holds no animation.
    """
    seeds, frames = parse_seeds(opts["interpolate"]), opts["frames"] or FRAMES
    if frames < len(seeds):
        raise UserError(f"--frames={frames} is less than the {len(seeds)} seeds of --interpolate; give more frames.")
    suffix = picture_files.CHOICES[opts["format"] or FORMAT]
    if suffix not in picture_files.FRAME_FORMATS:
        raise UserError(f"--format={opts['format']} holds no animation; give webp, png, avif or tiff.")
    single = Path(opts["output"]).suffix.lower()
    if single in picture_files.SUFFIXES and single not in picture_files.FRAME_FORMATS:
        raise UserError(f"--output={opts['output']} holds no animation; give a name that ends in .webp, .png or .gif.")
    chosen = opts["format"] or (None if single in picture_files.SUFFIXES else FORMAT)
    return opts | {"interpolate": seeds, "frames": frames, "format": chosen}


def find_sizes(opts: dict, default: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns the (height, width) of the animations; UserError if one has too many pixels in all its frames."""
    wanted = generating.find_sizes(opts, default)
    for height, width in wanted:
        sizes.check_output((height * opts["frames"], width), opts["max-output-pixels"])
    return wanted


def name_results(opts: dict, wanted: list[tuple[int, int]], where: Destination, key: str) -> list[list[Result]]:
    """Describes the animations, one for each size."""
    seeds = "-".join(map(str, opts["interpolate"]))

    def describe(size: tuple[int, int]) -> Result:
        name = generating.name_result(opts, where, (PATTERN, FORMAT), size, stem=STEM, index=0, seed=seeds)
        return Result(name, None, Entry(key, None, 0, (0, 0), size, opts["frames"]))

    return [[describe(size) for size in wanted]]


def run(model, opts: dict, where: Destination, todo: list[list[Result]], journal: Journal) -> None:
    """Generates the animations that are to be made; the arguments are those of `generating.run`."""
    journal.start()
    (results,), frames = todo, opts["frames"]
    with counted_progress(frames * (1 + len(results))) as advance:
        advance(0, "denoising")
        done = upscaling.moving(advance, frames)
        path = model.interpolate_each(opts["interpolate"], frames, progress=done, **sampling.given(opts))
        latents = np.concatenate([z for _, z in path])
        for one in results:
            advance(0, f"rendering {one.entry.size[0]} x {one.entry.size[1]}")
            with journal.recorded(where.folder / one.name, one.name, one.entry):
                shown = _renders(model, latents, one.entry.size, advance)
                picture_files.write_animation(where.folder / one.name, shown, opts)


def _renders(model, latents: np.ndarray, size: tuple[int, int], advance) -> Iterator[np.ndarray]:
    for z in latents:
        yield model.render(z[None], size)[0]
        advance(1)
