"""Writes files in such a way that a reader finds either the complete file or none."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_unfinished: set[Path] = set()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields an empty temporary file beside `path` and renames it to `path` when the block ends.

    If the block raises, the temporary file is deleted and `path` stays as it was. The new file has the permissions that
    the umask gives, whichever library wrote it.
    """
    part = _part_of(path)
    _unfinished.add(part)
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        if part.stat().st_mode != mode:  # safetensors replaces it by a file that only its owner may read
            part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        _unfinished.discard(part)


def _part_of(path: Path) -> Path:
    """Returns the temporary name of a file: short, since a name has at most 255 bytes, and of this process alone."""
    mark = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return path.with_name(f".{mark}.{os.getpid()}.part")


def discard_unfinished() -> None:
    """Deletes the temporary files of this process, which is about to end without leaving its blocks."""
    for part in list(_unfinished):
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, complete or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
