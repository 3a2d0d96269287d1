"""Reads metadata that other programs may have written: JSON files, and names of files that must stay in their folder.

Whatever such a file holds, the caller gets the type that it asked for, or a UserError that says in one sentence the
file, the key, what was expected and what was found.
"""

import json
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arbiscale_jax.errors import UserError

MAX_BYTES = 2**26  # largest file: a parsed file may take thirty times as much memory
MAX_NAME, MAX_PATH = 255, 1000  # bytes in the name of a file, and in a path
MAX_COUNT = 2**53  # integers up to here are exact in every program that writes JSON
_SHOWN = 60  # characters of a value that messages show
_MISSING = object()


@dataclass(frozen=True)
class Entry:
    """Holds a value of a JSON file, together with its place in the file."""

    file: Path  # the JSON file
    remedy: str  # end of error messages, for example "copy the set again"
    value: Any  # the parsed value
    key: str = ""  # place of the value, for example splits[0].name; "" is the whole file

    def member(self, name: str) -> "Entry":
        """Returns a member of this object; if it is missing, the error comes when its value is asked for.

        TFDS writes protocol buffers, in which the name may be spelled shardLengths or shard_lengths.

        Raises:
          UserError: if this is not an object.
        """
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        snake = re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), name)
        found = next((self.value[key] for key in (name, snake) if key in self.value), _MISSING)
        called = name if re.fullmatch(rf"[\w/-]{{1,{_SHOWN}}}", name) else shown(name)
        return replace(self, value=found, key=f"{self.key}.{called}" if self.key else called)

    def members(self) -> dict[str, "Entry"]:
        """Returns all members by name, or raises UserError if this is not an object."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return {name: self.member(name) for name in self.value}

    def items(self) -> list["Entry"]:
        """Returns the elements, or raises UserError if this is not a list."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [replace(self, value=one, key=f"{self.key}[{i}]") for i, one in enumerate(self.value)]

    def text(self) -> str:
        """Returns the text, or raises UserError if this is not a text."""
        if not isinstance(self.value, str):
            raise self.wrong("a text")
        return self.value

    def name(self) -> str:
        """Returns a text that can be part of the name of a file, or raises UserError if it cannot."""
        text = self.text()
        if not stays_inside(text) or "/" in text:
            raise self.wrong(f"a name of at most {MAX_NAME} bytes without slashes, colons and control characters")
        return text

    def count(self) -> int:
        """Returns a count, a whole number from 0 to MAX_COUNT; protocol buffers may write it as a text.

        Raises:
          UserError: if this is not such a number.
        """
        value = self.value
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,16}", value):
            value = int(value)
        if type(value) is not int or not 0 <= value <= MAX_COUNT:  # a bool is an int, too
            raise self.wrong(f"a whole number from 0 to {MAX_COUNT}")
        return value

    def scalar(self) -> str | int | float | bool | None:
        """Returns a single value of any type, or raises UserError if this is an object, a list or missing."""
        if self.value is _MISSING or isinstance(self.value, dict | list):
            raise self.wrong("a single value")
        return self.value

    def get(self, read: Callable[["Entry"], Any], default: Any) -> Any:
        """Returns read(this entry), or the default if the entry is missing."""
        return default if self.value is _MISSING else read(self)

    def wrong(self, expected: str) -> UserError:
        """Makes the error for an entry whose value is not what was expected."""
        key = self.key if len(self.key) <= MAX_NAME else f"...{self.key[-MAX_NAME:]}"  # the value may be nested deeply
        if self.value is _MISSING:
            return UserError(f"{self.file} lacks {key}, which must be {expected}; {self.remedy}.")
        where = f"{key} in {self.file} must be" if key else f"{self.file} must hold"
        return UserError(f"{where} {expected}, got {shown(self.value)}; {self.remedy}.")


def read(path: Path, remedy: str) -> Entry:
    """Reads a JSON file.

    Args:
      path: the file.
      remedy: end of the messages of errors in this file.

    Raises:
      UserError: if the file is missing, not a regular file, too large, not UTF-8 or not JSON.
    """
    try:
        value = json.loads(_content(path).decode("utf-8-sig"), parse_constant=_no_constant, parse_int=_integer)
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path} cannot be read ({_why(e)}); {remedy}.") from e
    return Entry(path, remedy, value)


def read_if_any(path: Path, remedy: str) -> Entry:
    """Reads a JSON file like `read`, but returns an empty object if the file does not exist."""
    return read(path, remedy) if path.exists() else Entry(path, remedy, {})


def stays_inside(path: str) -> bool:
    """Tells whether a path, joined to a folder, lies below that folder, on Windows and in URLs as well."""
    if not path.isprintable() or re.search(r"[\\:]", path) or len(path.encode()) > MAX_PATH:
        return False
    return all(part not in ("", ".", "..") and len(part.encode()) <= MAX_NAME for part in path.split("/"))


def shown(value: Any) -> str:
    """Returns a value as messages show it: at most _SHOWN characters of the JSON of a scalar."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def listed(names: Iterable[str]) -> str:
    """Returns names as messages list them: the first ten, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def one_line(error: Exception) -> str:
    """Returns the first 200 characters of another library's error message, in a form that fits into a sentence."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _why(error: Exception) -> str:
    """Returns why a JSON file cannot be read, as part of a sentence."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {error.msg} in line {error.lineno}"
    return str(error)


def _content(path: Path) -> bytes:
    """Returns the content of a file, or raises ValueError if it is too large or not a regular file."""
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for its writer
        raise ValueError("it is no file")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    return content


def _no_constant(name: str) -> None:
    """Refuses NaN and Infinity, which Python would accept in JSON."""
    raise ValueError(f"it is not JSON: {name} is no number there")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 100 else float(digits)  # Python refuses to parse very long ones
