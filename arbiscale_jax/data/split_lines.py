"""Reads the lines of text files that list images, as editors and shells of any system write them, and shows names."""

import codecs
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from arbiscale_jax.errors import UserError

_MARKS = (  # byte order marks; that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_QUOTES = "\"'`"


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file that are neither blank nor comments, which begin with #, as the file has them.

    The file is in UTF-8, or UTF-16 or UTF-32 with a byte order mark, or UTF-16 without one. Bytes that are no UTF-8
    become the characters by which Python names such files. Lines end with LF, CR LF or CR.

    Raises:
      UserError: if the file cannot be read or is no text.
    """
    try:
        text = _decode(path.read_bytes())
    except (OSError, UnicodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is no text"
        raise UserError(f"The split file {path} cannot be read ({why}); give a text file with a name per line.") from e
    lines = (line.lstrip("\ufeff") for line in re.split(r"\r\n|\n|\r", text))  # joined files have marks inside
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _decode(content: bytes) -> str:
    """Decodes a text file, and raises UnicodeError if it holds other things than text."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if not encoding and b"\0" in content:  # half of the bytes of names in UTF-16 are zero
        encoding = "utf-16-be" if content[::2].count(0) > content[1::2].count(0) else "utf-16-le"
    text = content.decode(encoding) if encoding else content.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise UnicodeError("a text has no character 0")
    return text


def spellings(line: str) -> Iterator[str]:
    """Yields the names that a line may mean: the line itself first, then without what is not part of a name.

    Blanks around the name, quotes, ./ and a comment behind the name are taken away, and backslashes become slashes.
    """
    found = [line, line.strip()]
    found.append(re.split(r"\s#", line)[0].strip())
    for text in list(found):
        if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
            found.append(text[1:-1].strip())
    found += [text.replace("\\", "/") for text in found]
    plain = (re.sub(r"^(\./+)+", "", re.sub(r"/{2,}", "/", text)) for text in found)
    yield from dict.fromkeys(text for text in plain if text)


def plain_name(name: str) -> str:
    """Returns a name in the composed form of Unicode, since systems write letters with accents differently."""
    return unicodedata.normalize("NFC", name)


def leads_out(name: str) -> bool:
    """Tells whether a path with forward slashes leads above the folder that it is relative to."""
    depth = 0
    for part in name.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return True
    return False


def shortened(name: str, most: int = 100) -> str:
    """Returns a name as messages show it, with the end of a long one left out."""
    name = name.strip()
    return name if len(name) <= most else f"{name[:most]}..."


def named(names: Sequence[str], most: int = 3) -> str:
    """Returns the first names between commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shortened, names[:most])) + more
