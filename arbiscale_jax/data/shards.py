"""Writes one shard of a prepared set: images are cut or resized, encoded and written as ArrayRecord.

This runs in worker processes.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import read_image
from arbiscale_jax.runtime.whole_files import replacing, write_text

from . import metadata, tf_example
from .folders import path_of
from .small_pictures import large_enough, least_side

FITS = ("crop", "aspect", "tiles", "keep")
FORMATS = ("png", "jpeg")
BICUBIC = Image.Resampling.BICUBIC  # antialiased, as in transforms


class Storage(NamedTuple):
    """Says how the images of a prepared set are cut, resized and stored."""

    size: int = 0  # side in pixels that `fit` makes; 0 goes with "keep", which makes none
    fit: str = "crop"  # one of FITS, which `cut_out` explains
    image_format: str = "png"  # one of FORMATS: png is exact, jpeg is smaller
    quality: int = 95  # JPEG quality from 1 to 100; png does not use it


class Job(NamedTuple):
    """Describes one shard that is to be written."""

    roots: dict[str, Path]  # folders of images, as `folders.parse_roots` returns them
    names: tuple[str, ...]  # names of the images
    storage: Storage  # how they are stored
    path: Path  # the shard; the file PATH.json says that it is complete


def write_shard(job: Job) -> dict:
    """Writes a shard unless it is complete already.

    Returns:
      {"records": number of records, "bytes": size of the file, "broken": [[name, reason], ...]}, which is also written
      to PATH.json. An image that is too small to learn from counts as broken.

    Raises:
      UserError: if the file cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    if done := read_done(job.path):
        return done
    records, broken = 0, []

    def read(name):
        return read_image(path_of(job.roots, name))

    try:
        with replacing(job.path) as part:
            with closing(ArrayRecordWriter(str(part), "group_size:1")) as writer:  # a record per chunk: random access
                for name in job.names:
                    try:
                        image = large_enough(name, read, least_side(job.storage.size), "the folder")
                    except UserError as e:
                        broken.append([name, str(e)])
                        continue
                    for label, cut in cut_out(image, job.storage):
                        example = {"image": _encode(cut, job.storage), "name": os.fsencode(name + label)}  # as on disk
                        writer.write(tf_example.encode(example))
                        records += 1
        done = {"records": records, "bytes": job.path.stat().st_size, "broken": broken}
        write_text(marker(job.path), json.dumps(done))
    except (OSError, RuntimeError) as e:
        raise UserError(f"The shard {job.path} cannot be written ({e}); make room or choose another --output.") from e
    return done


def marker(path: Path) -> Path:
    """Returns the path of the file that says that a shard is complete."""
    return path.with_name(f"{path.name}.json")


def read_done(path: Path) -> dict | None:
    """Returns what `write_shard` returned for a shard, or None if the shard is not complete."""
    try:
        entry = metadata.read(marker(path), "write the shard again")
        done = {key: entry.member(key).count() for key in ("records", "bytes")} | {"broken": broken_images(entry)}
        return done if not path.exists() or path.stat().st_size == done["bytes"] else None
    except (OSError, UserError):
        return None


def broken_images(entry: metadata.Entry) -> list[list[str]]:
    """Returns the list "broken" of a shard's or a split's description: [[name, reason], ...].

    Raises:
      UserError: if it is something else.
    """
    pairs = [one.items() for one in entry.member("broken").items()]
    for pair, one in zip(pairs, entry.member("broken").items(), strict=True):
        if len(pair) != 2:
            raise one.wrong("a name and a reason")
    return [[part.text() for part in pair] for pair in pairs]


def cut_out(image: np.ndarray, storage: Storage) -> Iterator[tuple[str, Image.Image]]:
    """Yields the pictures that are stored of an image, each with a label that is added to the image's name.

    The fit "crop" resizes the largest square in the middle to size x size. "aspect" resizes the whole image so that its
    shorter side is `size`. "tiles" cuts windows of size x size that are evenly spread and overlap by at least half,
    without resizing. "keep" changes nothing.

    Args:
      image: uint8 [h, w, 3].
      storage: its size and fit are used.
    """
    whole, (h, w, _), size = Image.fromarray(image), image.shape, storage.size
    if storage.fit == "crop":
        side = min(h, w)
        left, top = (w - side) // 2, (h - side) // 2
        yield "", whole.crop((left, top, left + side, top + side)).resize((size, size), BICUBIC)
    elif storage.fit == "aspect":
        scale = size / min(h, w)
        yield "", whole.resize((max(size, round(w * scale)), max(size, round(h * scale))), BICUBIC)
    elif storage.fit == "tiles":
        for i, top in enumerate(tile_starts(h, size)):
            for j, left in enumerate(tile_starts(w, size)):
                yield f"#{i},{j}", whole.crop((left, top, min(left + size, w), min(top + size, h)))
    else:
        yield "", whole


def tile_starts(length: int, size: int) -> list[int]:
    """Returns the starts of the fewest windows of `size` that cover `length` and overlap by at least half."""
    if length <= size:
        return [0]
    count = -(-2 * (length - size) // size) + 1
    return [round(k * (length - size) / (count - 1)) for k in range(count)]


def _encode(image: Image.Image, storage: Storage) -> bytes:
    """Encodes an image as PNG or JPEG."""
    out = io.BytesIO()
    options = {"quality": storage.quality, "subsampling": 0} if storage.image_format == "jpeg" else {}
    image.save(out, format=storage.image_format, **options)
    return out.getvalue()
