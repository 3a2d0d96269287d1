"""Says where results go, and which are to be made: those that are there already are kept, replaced or refused."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from arbiscale_jax.cli import files, picture_files, result_names
from arbiscale_jax.cli.journal import Entry, Journal
from arbiscale_jax.errors import UserError
from arbiscale_jax.images.saving import write_whole
from arbiscale_jax.runtime.whole_files import remove_leftovers

MAKE, KEEP = "make", "keep"  # what happens to a result: it is computed; it is there and counts as it is
AGAIN = "again"  # it is there from an earlier start of this command, which ended before all results were


class Destination(NamedTuple):
    """Says where the results of a command go."""

    folder: Path
    single: str | None  # the name of the one result, if --output names a picture
    settings: Path  # the file that records how the results were made


class Result(NamedTuple):
    """Describes one result."""

    name: str  # its path below the folder of the results
    input: Path | None  # the picture that it is made from
    entry: Entry  # what the journal will say of it


def parse(opts: dict) -> Destination:
    """Reads --output: a folder, or the name of one picture.

    Raises:
      UserError: if it is the name of a picture in a format that is not written.
    """
    output = Path(opts["output"])
    kind = output.suffix.lower()
    known = (*picture_files.SUFFIXES, *picture_files.extensions())
    if kind not in known or opts["output"].endswith("/") or output.is_dir():
        return Destination(output, None, output / "sample.json")
    if kind not in picture_files.SUFFIXES:
        raise UserError(
            f"--output={output} looks like a file; give a folder, or a name that ends in "
            f"{' or '.join(picture_files.SUFFIXES)} for one result."
        )
    settings = result_names.format_name("{stem}", {"stem": output.stem}, ".json")
    return Destination(output.parent, output.name, output.with_name(settings))


def check(where: Destination, results: Sequence[Result], inputs: Sequence[Path]) -> None:
    """Checks that all results can be written, before anything is computed or written.

    Raises:
      UserError: if not; see `result_names.check_distinct` and `files.check_output_folder`.
    """
    if where.single and len(results) != 1:
        raise UserError(
            f"--output={where.folder / where.single} names one result, but {len(results)} are asked for; give a folder."
        )
    result_names.check_distinct(where.folder, [(one.name, one.input) for one in results], inputs)
    files.check_output_folder(where.folder, 0)
    if where.settings.exists() and not _is_ours(where.settings):
        raise UserError(
            f"{where.settings}, which would record how the results were made, is there already and says something "
            "else; move it, or give another --output."
        )


def decide(where: Destination, results: Sequence[Result], journal: Journal, opts: dict) -> list[str]:
    """Returns for each result whether it is to be made: MAKE, KEEP or AGAIN.

    A result that the journal says this command made, with the same options from the same input, is never made again.
    Any other one that is there is kept with --skip-existing and made with --overwrite.

    Raises:
      UserError: if such a one is there, and neither flag is given.
    """
    found, refused = [], []
    for one in results:
        path, entry = where.folder / one.name, journal.entries.get(one.name)
        size = path.stat().st_size if path.exists() else None
        same = entry is not None and entry._replace(written=-1, settled=False) == one.entry
        if size is None or (same and entry and entry.written < 0):
            found.append(MAKE)
        elif same and entry and entry.written == size:
            found.append(KEEP if entry.settled else AGAIN)
        elif opts["skip-existing"]:
            found.append(KEEP)
        else:
            found.append(MAKE)
            refused.append(_why(path, one, entry, journal))
    if refused and not opts["overwrite"]:
        why, others = refused[0], len(refused) - 1
        more = f", and {others} more of the results are there already" if others else ""
        raise UserError(f"{why}{more}; give --overwrite to replace, --skip-existing to keep them, or another --output.")
    return found


def clean(where: Destination, results: Sequence[Result]) -> None:
    """Deletes what killed commands left in the folders of the results."""
    for folder in {(where.folder / one.name).parent for one in results} | {where.folder}:
        remove_leftovers(folder)


def write_settings(where: Destination, content: dict) -> None:
    """Writes the file that records how the results were made; names in it may hold any bytes, which JSON escapes."""
    write_whole(where.settings, json.dumps(content, indent=2, default=_plain).encode() + b"\n")


def _why(path: Path, one: Result, entry: Entry | None, journal: Journal) -> str:
    """Says why a result that is there is not what the command would make."""
    if entry is None:
        return f"{path} exists already"
    if entry.options != one.entry.options and (words := journal.other_options(entry.options)):
        return f"{path} was made with other options ({words})"
    if entry.source != one.entry.source:
        return f"{path} was made from another input or another version of it"
    return f"{path} was changed after it had been made"


def _is_ours(path: Path) -> bool:
    """Tells whether a file is one that `write_settings` wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "arbiscale_jax" in (content.get("versions") or ())


def _plain(value):
    """Converts a ConfigDict or a path so that json can write it."""
    return os.fspath(value) if isinstance(value, Path) else value.to_dict()
