"""Names results by a pattern, so that none replaces another one or an input, and every name is legal."""

import hashlib
import os
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from arbiscale_jax.cli.inputs import Found
from arbiscale_jax.errors import UserError

FIELDS = {
    "stem": "the input's name without its extension, or with it where two inputs of a folder would share a name",
    "ext": "the input's extension, without its dot",
    "scale": "the factor",
    "size": "HEIGHTxWIDTH of the output",
    "height": "the output's height",
    "width": "the output's width",
    "box": "the window, as TOP_LEFT_HEIGHT_WIDTH",
    "index": "the number of the answer, from 0",
    "seed": "the seed",
    "model": "the model's name",
}
OF_INPUTS = ("ext", "scale", "box")  # fields that generated images do not have
LONGEST = 255  # bytes of a file name on all usual file systems
_SPEC = re.compile(r"0?[0-9]{0,2}(\.[0-9]{1,2})?[dfg]?")

Fields = Mapping[str, str | int | float]


def check_pattern(pattern: str, known: Iterable[str]) -> None:
    """Raises UserError unless `pattern` is text with fields {NAME} or {NAME:FORMAT} whose names are known."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as e:
        raise UserError(f"--name={pattern} is no pattern ({e}); write fields such as {{stem}} in braces.") from e
    known = list(known)
    for _, name, spec, conversion in parts:
        if name is not None and name not in known:
            raise UserError(
                f"--name={pattern} has the unknown field {{{name}}}; the fields are "
                f"{', '.join(f'{{{one}}}' for one in known)}."
            )
        if name is not None and (conversion or not _SPEC.fullmatch(spec or "")):
            raise UserError(
                f"--name={pattern} has a field {{{name}}} with a format that is not taken; write {{{name}}}, or for a "
                "number a format such as {index:03d} or {scale:.2f}."
            )
    if "/" in pattern or "\0" in pattern or not pattern.strip("."):
        raise UserError(f"--name={pattern} names no file; give a name without slashes, such as {{stem}}_x{{scale}}.")


def unique_stems(pictures: Sequence[Found]) -> list[str]:
    """Returns a name for each picture that no other one of its folder has.

    It is the file's name without its extension; for pictures that would share it the file's whole name; and if these
    differ only in what some file systems do not tell apart (capitals, or the encoding of accents), a number is added.

    Raises:
      UserError: if pictures from different given folders have the same whole name.
    """
    names = [one.path.stem for one in pictures]
    while True:
        counts = Counter(_folded(one.folder, name) for one, name in zip(pictures, names, strict=True))
        clashing = [
            i
            for i, (one, name) in enumerate(zip(pictures, names, strict=True))
            if name != one.path.name and counts[_folded(one.folder, name)] > 1
        ]
        if not clashing:
            break
        for i in clashing:
            names[i] = pictures[i].path.name
    first: dict[tuple[str, str], Found] = {}
    for one in pictures:
        if (other := first.setdefault((one.folder, one.path.name), one)) is not one:
            raise UserError(
                f"2 inputs are called {one.path.name}, {other.path} and {one.path}, so results would overwrite each "
                "other; give the folder above them, or upscale them one by one."
            )
    taken: set[str] = set()
    for i, one in enumerate(pictures):
        name, number = names[i], 1
        while (key := _folded(one.folder, names[i])) in taken or (number > 1 and counts[key]):
            number += 1
            names[i] = f"{name}-{number}"
        taken.add(key)
    return names


def format_name(pattern: str, fields: Fields, suffix: str) -> str:
    """Returns the name of a result.

    A name that would be longer than 255 bytes has a shorter {stem}: its beginning, then ~ and eight digits of a hash of
    the whole stem.

    Args:
      pattern: as for `check_pattern`.
      fields: the value of each field.
      suffix: what the name ends with, such as .png; it is not repeated if the pattern ends with it.

    Raises:
      UserError: if a format does not fit its value, or the name is empty, or too long without its stem.
    """
    name = _filled(pattern, fields, suffix)
    excess, uses = len(os.fsencode(name)) - LONGEST, Counter(part[1] for part in string.Formatter().parse(pattern))
    if excess > 0:
        stem = str(fields["stem"])
        tag = "~" + hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
        room = len(os.fsencode(stem)) - -(-excess // max(1, uses["stem"])) - len(tag)
        if not uses["stem"] or room < 1:
            raise UserError(f"--name={pattern} makes a name of more than {LONGEST} bytes; give a shorter one.")
        while len(os.fsencode(stem)) > room:
            stem = stem[:-1]
        name = _filled(pattern, {**fields, "stem": stem + tag}, suffix)
    if name == suffix:
        raise UserError(f"--name={pattern} is empty for an input; add a field such as {{stem}}.")
    return name


def _filled(pattern: str, fields: Fields, suffix: str) -> str:
    """Returns the pattern with values in place of its fields."""
    text = ""
    for literal, name, spec, _ in string.Formatter().parse(pattern):
        text += literal
        if name is not None:
            value = fields[name]
            try:
                text += format(value, spec or ("g" if isinstance(value, float) else ""))
            except ValueError as e:
                raise UserError(f"--name={pattern}: {{{name}:{spec}}} does not fit {value!r} ({e}).") from e
    return text if text.lower().endswith(suffix) else text + suffix


def check_distinct(output: Path, results: Sequence[tuple[str, Path | None]], inputs: Iterable[Path]) -> None:
    """Checks that every result can have its name.

    Args:
      output: the folder of the results.
      results: pairs (path below `output`, the input it is made from or None).
      inputs: all inputs.

    Raises:
      UserError: if two results have the same name, also on a file system that does not tell capitals apart, or one
        would replace an input or a folder, or lie below another one or below a file.
    """
    seen: dict[str, Path | None] = {}
    for name, source in results:
        key = _folded("", name)
        if key not in seen:
            seen[key] = source
        elif seen[key] == source:
            of = f" of {source}" if source else ""
            raise UserError(
                f"Several results{of} would be called {output / name}; add {{index}} or {{size}} to --name."
            )
        else:
            raise UserError(
                f"{seen[key]} and {source} would both become {output / name}; add {{stem}} to --name, or upscale them "
                "one by one."
            )
    given = {(status.st_dev, status.st_ino) for status in map(_status, inputs) if status}
    folders: set[Path] = set()
    for name, _ in results:
        path = output / name
        status = _status(path)
        if status and (status.st_dev, status.st_ino) in given:
            raise UserError(f"The result {path} would replace an input; give another --output.")
        if path.is_dir():
            raise UserError(f"The result {path} cannot be written, since there is a folder of that name.")
        for above in Path(name).parents[:-1]:
            if _folded("", str(above)) in seen:
                raise UserError(
                    f"{output / above} would be both a result and a folder of results; give another --name."
                )
            folders.add(output / above)
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file, where a folder for results is needed; give another --output.")


def _status(path: Path) -> os.stat_result | None:
    """Returns the status of a file, or None if there is none; raises UserError if its path cannot be used."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise UserError(f"{path} cannot be used ({e.strerror}); give another --output or --name.") from e


def _folded(folder: str, name: str) -> str:
    """Returns a key that is equal for paths which some file system takes for one."""
    return unicodedata.normalize("NFC", os.path.join(folder, name)).casefold()
