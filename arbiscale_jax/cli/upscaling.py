"""Upscales files: it reads pictures, computes them in groups, and writes each result as soon as it is there."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arbiscale_jax import images
from arbiscale_jax.cli import files, sampling, sizes
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.progress import counted_progress

GROUP_PIXELS, GROUP_FILES = 4_000_000, 64  # pictures are computed together up to these numbers
KEPT_BYTES = 256 * 2**20  # decoded pictures up to this size in all are kept from checking to computing


Box = tuple[int, int, int, int]  # (top, left, height, width) of a window of the output


class Input(NamedTuple):
    """Describes one picture to upscale."""

    path: Path
    name: str  # the name of its results, without the suffix
    shape: tuple[int, int]  # (height, width)
    size: tuple[int, int]  # (height, width) of the whole output
    image: np.ndarray | None  # the decoded picture, unless too many are kept

    def read(self, max_pixels: int) -> np.ndarray:
        """Returns the picture, uint8 [h, w, 3]."""
        return images.read_image(self.path, max_pixels) if self.image is None else self.image


def find_inputs(opts: dict, given: Sequence[str], box: Box | None) -> list[Input]:
    """Finds, decodes and checks all pictures, before a model is loaded.

    Args:
      opts: the values of all flags.
      given: files and folders.
      box: (top, left, height, width) of the window of each output that is rendered, or None.

    Returns:
      The pictures; none of the results would replace an input or another result.

    Raises:
      UserError: if a picture cannot be read or upscaled, or its output would be too large.
    """
    scale = scale_of(opts)
    sizes.check_scale(scale)
    fixed = sizes.parse_size(opts["size"], "--size") if opts["size"] else None
    paths, found, kept = [path for name in given for path in files.find_images(name)], [], 0
    for path in paths:
        image = images.read_image(path, opts["max-pixels"])
        height, width = image.shape[:2]
        if min(height, width) < 2:
            raise UserError(f"{path} has {height} x {width} pixels; upscaling needs at least 2 x 2 to go by.")
        size = fixed or sizes.scaled((height, width), scale, str(path))
        sizes.check_output(_shown(size, box), opts["max-output-pixels"])
        if box:
            sizes.check_box(box, size, str(path))
        kept += image.nbytes
        found.append(Input(path, "", (height, width), size, image if kept <= KEPT_BYTES else None))
    names = _output_names(paths)
    return [one._replace(name=name) for one, name in zip(found, names, strict=True)]


def scale_of(opts: dict) -> float:
    """Returns the scale that the flags give, or 4, which counts where there is no --size."""
    return 4.0 if opts["scale"] is None else opts["scale"]


def suffixes(opts: dict, box: Box | None) -> list[str]:
    """Returns what the names of one picture's results end with, before .png."""
    scale = scale_of(opts)
    suffix = "x".join(map(str, sizes.parse_size(opts["size"], "--size"))) if opts["size"] else f"x{scale:g}"
    if box:
        suffix += "_at_" + "_".join(map(str, box))
    return [f"{suffix}_{i}" for i in range(opts["samples"])] if opts["samples"] else [suffix]


def check_outputs(output: Path, inputs: Sequence[Input], endings: Sequence[str], box: Box | None) -> None:
    """Raises UserError if a result would replace an input, or the folder cannot hold the results."""
    given = {one.path.resolve() for one in inputs}
    for path in (output / f"{one.name}_{ending}.png" for one in inputs for ending in endings):
        if path.resolve() in given:
            raise UserError(f"The result {path} would replace an input; give another --output.")
    shapes = [_shown(one.size, box) for one in inputs]
    files.check_output_folder(output, sum(3 * len(endings) * height * width for height, width in shapes))


def _shown(size: tuple[int, int], box: Box | None) -> tuple[int, int]:
    """Returns the (height, width) of what is rendered."""
    return (box[2], box[3]) if box else size


def _output_names(paths: list[Path]) -> list[str]:
    """Returns the stems of the files, or their whole names where two stems are equal.

    Raises:
      UserError: if two files have the same name.
    """
    name, count = Counter(path.name for path in paths).most_common(1)[0]
    if count > 1:
        raise UserError(f"{count} inputs are called {name}, so results would overwrite each other; upscale one by one.")
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else path.name for path in paths]


def groups(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    """Divides pictures into groups that are computed together."""
    group: list[Input] = []
    for one in inputs:
        pixels = sum(other.shape[0] * other.shape[1] for other in (*group, one))
        if group and (pixels > GROUP_PIXELS or len(group) == GROUP_FILES):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def run(model, opts: dict, inputs: Sequence[Input], box: Box | None) -> list[Path]:
    """Upscales the pictures and writes the results.

    Args:
      model: the model.
      opts: the values of all flags.
      inputs: the pictures.
      box: as in `find_inputs`.

    Returns:
      The files that were written.
    """
    output, endings, written = Path(opts["output"]), suffixes(opts, box), []
    options: dict[str, Any] = {"seed": opts["seed"], **sampling.given(opts)}
    with counted_progress(2 * len(endings) * len(inputs)) as advance:
        for group in groups(inputs):
            advance(0, f"{group[0].path.name}: to {group[0].size[0]} x {group[0].size[1]}")
            tell = partial(advance_by, advance, len(group) * len(endings))
            pictures = [one.read(opts["max-pixels"]) for one in group]
            found = model.upscale_each(
                pictures, [one.size for one in group], len(endings), box=box, progress=tell, **options
            )
            for number, answer, rows in found:
                one = group[number]
                written.append(output / f"{one.name}_{endings[answer]}.png")
                files.write_rows(written[-1], _shown(one.size, box), rows)
                advance(1, one.path.name)
    order = {output / f"{one.name}_{ending}.png": i for i, one in enumerate(inputs) for ending in endings}
    return sorted(written, key=lambda path: (order[path], path.name))


def advance_by(advance: Callable[..., None], steps: int, done: int, total: int) -> None:
    """Moves the bar when the model calls progress(done, total), in all by `steps` steps."""
    advance(steps / total)
