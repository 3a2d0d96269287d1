"""Plans what `upscale` does: it reads and checks all pictures, names all results, and finds which are to be made."""

import math
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from arbiscale_jax import images
from arbiscale_jax.cli import destination, inputs, picture_files, program, result_names, sizes
from arbiscale_jax.cli.destination import MAKE, Destination, Result
from arbiscale_jax.cli.inputs import Found, Identity
from arbiscale_jax.cli.journal import Entry, Journal
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.progress import counted_progress
from arbiscale_jax.runtime.screen import printable

NAMED = 5  # files that are passed over are named up to this number
KEPT_BYTES = 256 * 2**20  # decoded pictures up to this size in all are kept from checking to computing

Box = tuple[int, int, int, int]  # (top, left, height, width) of a window of the output


class Input(NamedTuple):
    """Describes one picture to upscale."""

    found: Found
    identity: Identity
    shape: tuple[int, int]  # (height, width)
    size: tuple[int, int]  # (height, width) of the whole output; of the first frame, if there are several
    frames: int  # how many frames or pages are upscaled
    num_bytes: int  # of what is rendered of all frames, uncompressed
    suffix: str  # what the names of its results end with
    picture: images.Picture | None = None  # the decoded picture, unless too many are kept or there are several frames
    transparent: bool = False  # whether its results have alpha


class Plan(NamedTuple):
    """Holds what a command is to do."""

    where: Destination
    box: Box | None
    inputs: list[Input]
    results: list[list[Result]]  # of each input, one per answer
    actions: list[list[str]]  # of each result: destination.MAKE, KEEP or AGAIN
    left_out: list[str]  # sentences about pictures that cannot be upscaled

    def count(self, action: str) -> int:
        """Returns the number of results with this action."""
        return sum(one == action for some in self.actions for one in some)


def make_plan(opts: dict, found: inputs.Finding, where: Destination, journal: Journal, box: Box | None) -> Plan:
    """Reads and checks all pictures, names all results, and says which are to be made.

    A picture that cannot be upscaled is left out and named on stderr. One from which all results are there already is
    not read again.

    Args:
      opts: the values of all flags.
      found: the files; results of earlier commands are no inputs, unless they are named without their own inputs.
      where: where results go.
      journal: what is finished.
      box: (top, left, height, width) of the window of each output that is rendered, or None.

    Returns:
      The plan; none of its results would replace an input or another result.

    Raises:
      UserError: if no picture can be upscaled, or a result cannot have its name.
    """
    left_out, known = list(found.left_out), journal.examined()
    for line in left_out:
        program.say_left_out(line)
    if found.passed_over:
        names = ", ".join(printable(path.name) for path in found.passed_over[:NAMED])
        more = f" and {len(found.passed_over) - NAMED} more" if len(found.passed_over) > NAMED else ""
        print(f"note: passed over, since their formats are not read: {names}{more}", file=sys.stderr)
    pictures = _without_results(found.pictures, where, journal)
    if not pictures:
        raise UserError(f"All pictures are results that {journal.path} lists; name files, or give another --output.")
    stems = dict(zip((one.path for one in pictures), result_names.unique_stems(pictures), strict=True))
    usable: list[Input] = []
    kept = 0
    with counted_progress(len(pictures), "reading", on_terminals=True) as advance:
        for one in pictures:
            try:
                usable.append(_examine(one, opts, known, where.single, box))
            except UserError as e:
                if len(pictures) == 1:
                    raise
                left_out.append(str(e))
                program.say_left_out(str(e))
                continue
            finally:
                advance(1)
            kept += 0 if usable[-1].picture is None else usable[-1].picture.pixels.nbytes
            if kept > KEPT_BYTES or usable[-1].frames > 1:
                usable[-1] = usable[-1]._replace(picture=None)
    if not usable:
        raise UserError(f"None of the {len(left_out)} inputs can be upscaled; the first: {left_out[0]}")
    _say_what_is_special(usable)
    results = [_results(opts, one, stems[one.found.path], where, journal.key, box) for one in usable]
    flat = [result for some in results for result in some]
    destination.check(where, flat, [one.found.path for one in usable])
    for one, some in zip(usable, results, strict=True):
        picture_files.check_result(where.folder / some[0].name, shown(one.size, box), opts)
    actions = iter(destination.decide(where, flat, journal, opts))
    return Plan(where, box, usable, results, [[next(actions) for _ in some] for some in results], left_out)


def _without_results(pictures: list[Found], where: Destination, journal: Journal) -> list[Found]:
    """Returns the files without earlier results that lie in folders or are named together with their own inputs.

    The pattern FOLDER/*.png names results too when a command that writes to FOLDER is given again.
    """
    made = {os.path.abspath(where.folder / name): entry.source for name, entry in journal.entries.items()}
    given = {os.path.abspath(one.path) for one in pictures}

    def is_result(one: Found) -> bool:
        path = os.path.abspath(one.path)
        source = made.get(path)
        return path in made and (not one.named or (source is not None and source[0] in given))

    return [one for one in pictures if not is_result(one)]


def _examine(one: Found, opts: dict, known: dict, single: str | None, box: Box | None) -> Input:
    """Reads a picture, unless what it holds is known, and raises UserError if it cannot be upscaled."""
    who, there = inputs.identity(one.path), None
    if who in known:
        shape, frames, suffix = known[who]
        shapes = [shape] * frames
    else:
        there = picture_files.examine(one.path, opts, single)
        shapes, suffix = there.shapes, there.suffix
        for said in there.notes:
            print(f"note: {printable(one.path)}: {said}", file=sys.stderr)
    target = sizes.parse_target(opts)
    targets = [target.of(shape, str(one.path)) for shape in shapes]
    for size in dict.fromkeys(targets):
        sizes.check_output(shown(size, box), opts["max-output-pixels"])
        if box:
            sizes.check_box(box, size, str(one.path))
    pixels = sum(math.prod(shown(size, box)) for size in targets)
    if len(shapes) > 1:
        _check_memory(pixels * (opts["samples"] or 1), one.path)
    of_a_pixel = there.picture.pixels[0, 0].nbytes if there else 3
    whole = Input(one, who, shapes[0], targets[0], len(shapes), of_a_pixel * pixels, suffix)
    return whole._replace(picture=there.picture, transparent=there.transparent) if there else whole


def _check_memory(pixels: int, path: Path) -> None:
    """Raises UserError if memory cannot hold all frames of the results, of at most four channels of a byte."""
    from arbiscale_jax.inference.memory import physical_memory  # here, since it imports JAX

    if 4 * pixels > physical_memory():
        raise UserError(
            f"The frames of {path} take {4 * pixels / 2**30:.1f} GiB when they are enlarged, more than this machine's "
            "memory; lower the scale, or give --first-frame."
        )


def _say_what_is_special(usable: list[Input]) -> None:
    """Says how what is no single opaque picture is upscaled."""
    several = [one.frames for one in usable if one.frames > 1]
    if several:
        print(
            f"note: inputs with several frames or pages: {len(several)}; all {sum(several)} frames are upscaled",
            file=sys.stderr,
        )
    if transparent := sum(one.transparent for one in usable):
        print(f"note: inputs with transparency: {transparent}; it is enlarged by interpolation", file=sys.stderr)


def pattern(opts: dict, box: Box | None) -> str:
    """Returns the pattern of the results' names: --name, or one that says what was asked for."""
    if opts["name"] is not None:
        return opts["name"]
    by_size = opts["size"] or opts["long-side"]
    return (
        "{stem}_" + ("{size}" if by_size else "x{scale}") + "_at_{box}" * bool(box) + "_{index}" * bool(opts["samples"])
    )


def _results(opts: dict, one: Input, stem: str, where: Destination, key: str, box: Box | None) -> list[Result]:
    """Describes the results of one picture."""
    (height, width), (old, _) = one.size, one.shape
    fixed = opts["size"] or opts["long-side"]
    fields: dict[str, Any] = dict(
        stem=stem, ext=one.found.path.suffix[1:], size=f"{height}x{width}", height=height, width=width
    )
    fields |= dict(scale=height / old if fixed else sizes.parse_target(opts).scale, seed=opts["seed"])
    fields |= dict(box="_".join(map(str, box or ())), model=Path(opts["model"]).resolve().name)
    found = []
    for i in range(opts["samples"] or 1):
        name = where.single or str(
            Path(one.found.folder) / result_names.format_name(pattern(opts, box), fields | {"index": i}, one.suffix)
        )
        found.append(Result(name, one.found.path, Entry(key, one.identity, i, one.shape, one.size, one.frames)))
    return found


def shown(size: tuple[int, int], box: Box | None) -> tuple[int, int]:
    """Returns the (height, width) of what is rendered of an output."""
    return (box[2], box[3]) if box else size


def bytes_to_write(plan: Plan) -> int:
    """Returns about how many bytes the results that are to be made have."""
    number = [sum(action == MAKE for action in actions) for actions in plan.actions]
    return sum(num * one.num_bytes for num, one in zip(number, plan.inputs, strict=True))
