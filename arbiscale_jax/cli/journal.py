"""Records each finished result in a file beside the results, so that a command that was stopped goes on where it was.

The journal has one JSON object per line: `options` when a command starts, `begun` before a result is written, `done`
when it is there, and `end` when a command has finished. It is only appended to, and a line that was cut off when a
process was killed does not count.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from arbiscale_jax.cli.inputs import Identity
from arbiscale_jax.errors import UserError

NAME = "journal.jsonl"


class Entry(NamedTuple):
    """Describes one result."""

    options: str  # key of the options that made it
    source: Identity | None  # the input, or None for a generated image
    answer: int  # the number of the answer
    shape: tuple[int, int]  # (height, width) of the input, (0, 0) if there is none
    size: tuple[int, int]  # (height, width) of the output of which the result shows the whole or a window
    frames: int = 1  # how many frames or pages the result has
    written: int = -1  # bytes of the finished result; -1: it was begun, and the process ended before it was there
    settled: bool = False  # whether the command that wrote it has finished


class Journal:
    """Holds what the journal of a folder says, and appends to it; without a folder it holds and writes nothing."""

    def __init__(self, folder: Path | None, options: dict):
        """Reads the journal.

        Args:
          folder: the folder of the results.
          options: everything that the bytes of a result depend on besides its input, as JSON values.
        """
        self.path = folder / NAME if folder else None
        self.options = json.loads(json.dumps(options))  # as they are read back: lists in place of tuples
        self.key = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()[:16]
        self.entries: dict[str, Entry] = {}  # by the path below the folder
        self.fresh: set[str] = set()  # the results that this process has finished
        self._known: dict[str, dict] = {}
        for line in self._lines():
            try:
                self._take(line)
            except (KeyError, TypeError, ValueError):  # not written by this module
                continue

    def start(self) -> None:
        """Records the options, before the first result is written."""
        self._append({"options": self.key, "values": self.options})

    def begin(self, name: str, entry: Entry) -> None:
        """Records that a result is about to be written, which allows a later command to write it again."""
        self._append({"begun": name, **_described(entry)})

    def done(self, name: str, entry: Entry) -> None:
        """Records that a result is there."""
        self.entries[name] = entry
        self.fresh.add(name)
        self._append({"done": name, **_described(entry), "bytes": entry.written})

    @contextmanager
    def recorded(self, path: Path, name: str, entry: Entry) -> Iterator[None]:
        """Records before and after the block that it writes the result `name`, whose file is `path`."""
        self.begin(name, entry)
        yield
        self.done(name, entry._replace(written=path.stat().st_size))

    def end(self) -> None:
        """Records that the command has finished all its work."""
        self._append({"end": self.key})

    def examined(self) -> dict[Identity, tuple[tuple[int, int], int, str]]:
        """Returns (shape, frames, ending of the results' names) of each input of a result that these options made."""
        return {
            e.source: (e.shape, e.frames, Path(name).suffix)
            for name, e in self.entries.items()
            if e.source and e.options == self.key and e.written >= 0
        }

    def other_options(self, key: str) -> str:
        """Says in which options the command that wrote a result differed from this one."""
        before, now = self._known.get(key, {}), self.options
        names = [name for name in now if before.get(name) != now[name]]
        return ", ".join(f"{name} was {_shown(before.get(name))} and is {_shown(now[name])}" for name in names)

    def _take(self, line: str) -> None:
        """Adds what a line of the journal says."""
        said = json.loads(line)
        if "options" in said and "values" in said:
            self._known[said["options"]] = dict(said["values"])
        elif "end" in said:
            for name, entry in self.entries.items():
                if entry.options == said["end"]:
                    self.entries[name] = entry._replace(settled=True)
        else:
            path, size, time = said["input"] or ("", 0, 0)
            self.entries[said.get("done") or said["begun"]] = Entry(
                said["by"],
                (str(path), int(size), int(time)) if said["input"] else None,
                int(said["answer"]),
                _pair(said["shape"]),
                _pair(said["size"]),
                int(said["frames"]),
                int(said["bytes"]) if "done" in said else -1,
            )

    def _lines(self) -> Iterator[str]:
        """Yields the lines of the file; raises UserError if it cannot be read."""
        try:
            if self.path and self.path.exists():
                with self.path.open(encoding="utf-8", errors="replace") as file:
                    yield from file
        except OSError as e:
            raise UserError(f"{self.path} cannot be read ({e.strerror}); give another --output, or remove it.") from e

    def _append(self, content: dict) -> None:
        """Appends a line in one call, so that lines of several commands do not mix."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                cut = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"  # by a kill while it was written
                file.write(b"\n" * cut + json.dumps(content).encode() + b"\n")
        except OSError as e:
            raise UserError(
                f"{self.path} cannot be written ({e.strerror}); choose another --output or make room."
            ) from e


def _described(entry: Entry) -> dict:
    """Returns the fields of a line that `begun` and `done` share."""
    fields = dict(by=entry.options, input=entry.source, answer=entry.answer, shape=entry.shape, size=entry.size)
    return fields | dict(frames=entry.frames)


def _pair(values: list) -> tuple[int, int]:
    height, width = values
    return int(height), int(width)


def _shown(value) -> str:
    return "the model's" if value is None else str(value)
