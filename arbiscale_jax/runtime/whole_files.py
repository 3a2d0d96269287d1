"""Writes files in such a way that a reader finds either the complete file or none."""

import hashlib
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PART = re.compile(r"\.[0-9a-f]{12}\.([0-9a-f]{6})\.([0-9]+)\.part")  # key of the name, key of the machine, process
_FOREIGN_SECONDS = (
    24 * 3600
)  # another machine's temporary file that nobody wrote to for so long is taken for a leftover

_unfinished: set[Path] = set()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields an empty temporary file beside `path` and renames it to `path` when the block ends.

    If the block raises, the temporary file is deleted and `path` stays as it was. The new file has the permissions that
    the umask gives, whichever library wrote it. Its temporary name is short, so that `path` may have the longest name
    that the system allows.
    """
    part = temporary(path)
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


def temporary(path: Path) -> Path:
    """Returns the temporary name, of at most 40 bytes, under which this process writes `path`."""
    return path.with_name(f".{_key(os.fsencode(path.name), 12)}.{_machine()}.{os.getpid()}.part")


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files that killed processes left in `folder`, and those alone.

    Those of another machine, whose processes cannot be asked after, are deleted when a day has passed since they were
    written to.
    """
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if _PART.fullmatch(entry.name)]
    except OSError:  # there is no such folder yet, or nothing in it that could be deleted
        return
    for part in found:
        if _is_left(part):
            part.unlink(missing_ok=True)


def _is_left(part: Path) -> bool:
    """Tells whether no process writes to a temporary file any more."""
    match = _PART.fullmatch(part.name)
    if match is None or part in _unfinished:
        return False
    try:
        if match[1] != _machine():
            return time.time() - part.stat().st_mtime > _FOREIGN_SECONDS
        if int(match[2]) != os.getpid():  # otherwise this process has the number of the one that was killed
            os.kill(int(match[2]), 0)
            return False
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # the process belongs to another user, or the file has just gone
        return False
    return True


def _key(text: bytes, digits: int) -> str:
    """Returns the first digits of a hash."""
    return hashlib.sha256(text).hexdigest()[:digits]


def _machine() -> str:
    """Returns a key of this machine's name."""
    return _key(platform.node().encode(errors="surrogateescape"), 6)


def discard_unfinished() -> None:
    """Deletes the temporary files of this process, which is about to end without leaving its blocks."""
    for part in list(_unfinished):
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, complete or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
