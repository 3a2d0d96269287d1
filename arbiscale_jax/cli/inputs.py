"""Finds the pictures that the inputs of a command mean: files, and folders with everything below them."""

import os
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from arbiscale_jax.errors import UserError

Identity = tuple[str, int, int]  # (absolute path, bytes, time of the last change in ns) of a file


class Found(NamedTuple):
    """Describes a picture's file."""

    path: Path
    folder: str  # the folder in which it lies, below the one that was given; "" for that one and for a given file
    named: bool  # whether the file itself was given


class Finding(NamedTuple):
    """Holds what a search found."""

    pictures: list[Found]
    left_out: list[str]  # sentences about what looked like a picture or a folder and could not be opened
    passed_over: list[Path]  # files in folders whose formats are not read


def find(given: Sequence[str], extensions: Collection[str], foreign: Collection[str], output: Path) -> Finding:
    """Finds pictures; none of them is read.

    A folder is searched with all folders below it. Hidden files and folders are left out, and so is the folder of the
    results. Symbolic links are followed; a folder that several paths lead to is
    searched once, under its own path if it has one below the given folder. A file that is found twice counts once.

    Args:
      given: files and folders.
      extensions: endings of the names that pictures in folders have, in lower case.
      foreign: endings of the names of pictures and films in formats that are not read.
      output: the folder of the results.

    Returns:
      The pictures, those of a folder sorted by path.

    Raises:
      UserError: if a given path does not exist or cannot be opened, or a folder holds no picture.
    """
    pictures: dict[str, Found] = {}
    search = _Search(extensions, foreign, output)
    for name in given:
        path = Path(name)
        try:
            if not path.exists():
                raise UserError(f"--input={path} does not exist; give an image file or a folder of images.")
            found = [Found(path, "", True)] if path.is_file() else search.walk(path)
        except OSError as e:  # exists() hides only some of these errors
            raise UserError(f"--input={path} cannot be opened ({e.strerror}); give a path that you may read.") from e
        if not found:
            raise UserError(
                f"The folder --input={path} holds no image file; give a folder of PNG, JPEG or similar files."
            )
        for one in found:
            before = pictures.get(key := os.path.abspath(one.path), one)
            pictures[key] = before._replace(named=before.named or one.named)
    return Finding(list(pictures.values()), search.left_out, search.passed_over)


def identity(path: Path) -> Identity:
    """Returns what tells a file from another one and from its own earlier content.

    Raises:
      UserError: if there is no such file any more.
    """
    try:
        status = path.stat()
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror}); save or copy it again.") from e
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


class _Search:
    """Searches folders, and holds what it could not open."""

    def __init__(self, extensions: Collection[str], foreign: Collection[str], output: Path):
        self.extensions, self.foreign, self.output = extensions, foreign, output
        self.left_out: list[str] = []
        self.passed_over: list[Path] = []

    def walk(self, root: Path) -> list[Found]:
        """Returns the pictures below a folder, sorted; raises OSError if it cannot be opened."""
        found, real, linked = [], deque([(root, "")]), deque()
        seen = {_place(self.output)} - {_place(root)}  # the folders that are not searched (again)
        while real or linked:  # a folder's own path comes before links to it
            folder, below = (real or linked).popleft()
            try:
                if (place := _place(folder)) in seen:
                    continue
                seen.add(place)
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as e:
                if folder is root:
                    raise
                self.left_out.append(f"{folder} cannot be opened ({e.strerror})")
                continue
            for entry in (entry for entry in entries if not entry.name.startswith(".")):
                path = folder / entry.name
                if _is(entry.is_dir):
                    (linked if entry.is_symlink() else real).append((path, os.path.join(below, entry.name)))
                elif self._is_picture(path, entry):
                    found.append(Found(path, below, False))
        return sorted(found, key=lambda one: (one.folder.split(os.sep), one.path.name))

    def _is_picture(self, path: Path, entry: os.DirEntry) -> bool:
        """Tells whether a file counts as a picture; what looks like one and is none is noted."""
        suffix = path.suffix.lower()
        if suffix in self.extensions and _is(entry.is_file):
            return True
        if suffix in self.extensions:
            self.left_out.append(f"{path} is not a file, or a link to none")
        elif suffix in self.foreign:
            self.passed_over.append(path)
        return False


def _place(folder: Path) -> tuple[int, int] | None:
    """Returns a key of a folder that is the same for all paths to it, or None if there is no such folder."""
    try:
        status = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _is(kind) -> bool:
    """Returns kind(), or False for what cannot be examined, such as a link to itself."""
    try:
        return kind()
    except OSError:
        return False
