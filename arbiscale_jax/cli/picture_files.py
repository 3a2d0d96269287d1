"""Reads the pictures and writes the results of `upscale` and `generate`: the one place that knows formats of files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from arbiscale_jax import images
from arbiscale_jax.errors import UserError
from arbiscale_jax.images.row_saving import save_rows
from arbiscale_jax.images.saving import ENDINGS, FORMATS, FRAME_FORMATS, check_file

SUFFIXES = tuple(FORMATS | FRAME_FORMATS)  # what a result's name may end with
CHOICES = ENDINGS  # of --format
SAME = "same"  # the choice of --format that keeps each input's own
WITHOUT_LOSS = ("png", "tiff")
_FAMILY = {"MPO": "JPEG"}  # formats whose first picture is another's
_OF_CAMERAS = {".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
_BITS_8 = ("JPEG", "WEBP", "AVIF", "GIF")


class Contents(NamedTuple):
    """Describes what a file holds."""

    shapes: list[tuple[int, int]]  # (height, width) of each frame or page that is upscaled
    suffix: str  # what the names of its results end with
    picture: images.Picture  # the first frame
    transparent: bool  # whether its results have alpha
    notes: Sequence[str] = ()  # what is lost, such as 'it has 3 frames, of which the first alone is upscaled'


def extensions() -> set[str]:
    """Returns the extensions, in lower case and with dots, of the files in a folder that are taken for pictures."""
    return images.readable_extensions()


def foreign_extensions() -> set[str]:
    """Returns the extensions of pictures and films in formats that are not read, which are named where they lie."""
    return ({one.lower() for one in Image.registered_extensions()} | _OF_CAMERAS) - extensions()


def check_options(opts: dict, single: str | None) -> None:
    """Checks --format and --quality against each other and the name of the one result; `opts` are all flags' values.

    Raises:
      UserError: if they contradict each other.
    """
    wanted, named = opts["format"], FRAME_FORMATS | FORMATS
    if single and wanted and (wanted == SAME or named[Path(single).suffix.lower()] != named[CHOICES[wanted]]):
        raise UserError(f"--output names {single} and --format says {wanted}; leave one of them out.")
    if opts["quality"] is None:
        return
    kind = named[Path(single).suffix.lower()] if single else (wanted or "png").upper()
    if kind.lower() in WITHOUT_LOSS:
        raise UserError(f"--quality says nothing about {kind}, which is without loss; add --format jpg, webp or avif.")


def examine(path: Path, opts: dict, single: str | None = None) -> Contents:
    """Reads a file, with all its frames, to find out what it holds.

    Args:
      path: the file.
      opts: the values of all flags.
      single: the name of the one result, if --output gives it.

    Returns:
      What it holds.

    Raises:
      UserError: if the file cannot be read as a picture, or the format of the results cannot hold its frames.
    """
    picture, there = read(path, opts), _frames(path, opts)
    number, pages = (len(there), there.kind == "pages") if there else (1, False)
    several = there if there and number > 1 and not opts["first-frame"] else ()
    pictures = (frame.picture for frame in several) if several else (picture,)  # reading all frames checks them
    shapes = [(some.pixels.shape[0], some.pixels.shape[1]) for some in pictures]
    least = min(shapes, key=min)
    if min(least) < 2:
        raise UserError(f"{path} has {least[0]} x {least[1]} pixels; upscaling needs at least 2 x 2 to go by.")
    suffix = Path(single).suffix.lower() if single else _suffix(opts, path, picture, len(shapes))
    _check_holds(suffix, path, len(shapes), pages)
    said = _losses(picture, suffix)
    if number > len(shapes):
        said.append(f"it has {number} {'pages' if pages else 'frames'}, of which the first alone is upscaled")
    alpha = picture.has_alpha and FORMATS.get(suffix) != "JPEG"
    return Contents(shapes, suffix, picture, alpha, said)


def read(path: Path, opts: dict) -> images.Picture:
    """Reads a picture, or the first frame of several; `opts` are the values of all flags."""
    return images.read(path, opts["max-pixels"])


def read_frames(path: Path, opts: dict) -> images.Frames:
    """Returns the frames of a file; `opts` are the values of all flags."""
    return images.read_frames(path, opts["max-pixels"])


def check_still(name: str) -> None:
    """Raises UserError if a file of this name holds animations alone, and no single picture."""
    if Path(name).suffix.lower() not in FORMATS:
        raise UserError(f"--output={name} holds animations; give a name that ends in .png, or --interpolate.")


def check_result(path: Path, size: tuple[int, int], opts: dict) -> None:
    """Raises UserError if the format of a result cannot hold a picture of `size`, (height, width)."""
    check_file(path, size, opts["quality"], frames=path.suffix.lower() not in FORMATS)


def write(
    path: Path, size: tuple[int, int], rows: Iterable[np.ndarray], opts: dict, metadata: images.Metadata | None = None
) -> None:
    """Writes a result, complete or not at all.

    Args:
      path: the file.
      size: (height, width) of the result.
      rows: uint8 or uint16 [n, w, c], from the top down.
      opts: the values of all flags.
      metadata: what its input's file says besides the pixels.

    Raises:
      UserError: if the file cannot be written.
    """
    kept = None if opts.get("no-metadata") else metadata
    save_rows(path, size, rows, quality=opts["quality"], metadata=kept)


def write_frames(path: Path, frames: Sequence[images.Frame], loop: int | None, opts: dict) -> None:
    """Writes an animation or pages, complete or not at all; what the file says is what the first frame says.

    Args:
      path: the file.
      frames: the results, with their durations.
      loop: how often an animation is shown, 0 for without end.
      opts: the values of all flags.

    Raises:
      UserError: if the file cannot be written.
    """
    kept = None if opts.get("no-metadata") else frames[0].picture.metadata
    durations = [one.duration for one in frames] if frames[0].duration is not None else []
    images.save_frames(path, [one.picture for one in frames], durations, loop, quality=opts["quality"], metadata=kept)


def write_animation(path: Path, frames: Iterable[np.ndarray], opts: dict) -> None:
    """Writes generated pictures, uint8 [h, w, 3], as an animation that is shown without end, a tenth of a second each.

    Raises:
      UserError: if the file cannot be written.
    """
    images.save_frames(path, frames, quality=opts["quality"])


def _frames(path: Path, opts: dict) -> images.Frames | None:
    """Returns the frames, or None if their number cannot be found out, though the first may be intact."""
    try:
        return read_frames(path, opts)
    except UserError:
        return None


def _suffix(opts: dict, path: Path, picture: images.Picture, number: int) -> str:
    """Returns what the names of a picture's results end with, such as .png."""
    wanted = opts["format"] or (SAME if number > 1 else "png")
    if wanted != SAME:
        return CHOICES[wanted]
    known, kind = FRAME_FORMATS if number > 1 else FORMATS, picture.metadata.format
    own, kind = path.suffix.lower(), _FAMILY.get(kind or "", kind)
    return own if known.get(own) == kind else next((one for one in known if known[one] == kind), ".png")


def _check_holds(suffix: str, path: Path, number: int, pages: bool) -> None:
    """Raises UserError if a file with this ending cannot hold `number` frames, or pages."""
    if number == 1:
        if suffix not in FORMATS:
            raise UserError(f"A {suffix} file holds animations, and {path} is none; give another --output.")
        return
    if suffix not in FRAME_FORMATS or pages != (FRAME_FORMATS[suffix] == "TIFF"):
        word, others = ("pages", "tiff") if pages else ("frames", "png, webp or avif")
        raise UserError(
            f"{path} has {number} {word}, which a {suffix} file cannot hold; give --first-frame or --format {others}."
        )


def _losses(picture: images.Picture, suffix: str) -> list[str]:
    """Says what of a picture its results do not show."""
    kind, said = (FORMATS | FRAME_FORMATS)[suffix], []
    if picture.has_alpha and kind == "JPEG":
        said.append("its transparency is lost, since JPEG has none; it is shown on white")
    if picture.pixels.dtype == np.uint16 and kind in _BITS_8:
        said.append(f"its 16 bits are rounded to the 8 of {kind}")
    return said
