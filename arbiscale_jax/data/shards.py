"""One shard of a prepared set: images cut or resized, encoded, and written as ArrayRecord. Runs in worker processes."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import read_image
from arbiscale_jax.whole_files import replacing, write_text

from . import tf_example
from .folders import path_of

FITS = ("crop", "aspect", "tiles", "keep")
FORMATS = ("png", "jpeg")
BICUBIC = Image.Resampling.BICUBIC  # antialiased, as in transforms


class Settings(NamedTuple):
    """How images become records."""

    size: int
    fit: str
    image_format: str
    quality: int


class Job(NamedTuple):
    """One shard to write."""

    roots: dict[str, Path]
    names: tuple[str, ...]
    settings: Settings
    path: Path  # of the shard; PATH.json tells that it is complete


def write_shard(job: Job) -> dict:
    """Writes a shard, or finds it complete.

    Returns: {"records": their number, "bytes": of the file, "broken": [[name, why], ...]}, also in PATH.json.
    Raises: UserError if the file cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    if done := read_done(job.path):
        return done
    records, broken = 0, []
    try:
        with replacing(job.path) as part:
            writer = ArrayRecordWriter(str(part), "group_size:1")  # one record a chunk: random access
            for name in job.names:
                try:
                    image = read_image(path_of(job.roots, name))
                except UserError as e:
                    broken.append([name, str(e)])
                    continue
                for label, cut in cut_out(image, job.settings):
                    example = {"image": _encode(cut, job.settings), "name": (name + label).encode()}
                    writer.write(tf_example.encode(example))
                    records += 1
            writer.close()
        done = {"records": records, "bytes": job.path.stat().st_size, "broken": broken}
        write_text(marker(job.path), json.dumps(done))
    except (OSError, RuntimeError) as e:
        raise UserError(f"The shard {job.path} cannot be written ({e}); make room or choose another --output.") from e
    return done


def marker(path: Path) -> Path:
    """Returns the file that tells that a shard is complete."""
    return path.with_name(f"{path.name}.json")


def read_done(path: Path) -> dict | None:
    """Returns what `write_shard` returned for a shard that is complete, None for others."""
    try:
        done = json.loads(marker(path).read_text())
        return done if not path.exists() or path.stat().st_size == done["bytes"] else None
    except (OSError, ValueError):
        return None


def cut_out(image: np.ndarray, settings: Settings) -> Iterator[tuple[str, Image.Image]]:
    """Yields what is kept of an image, uint8 [h, w, 3], with a label for each piece.

    crop: the largest square in the middle, resized to size. aspect: the whole, its shorter side resized to size.
    tiles: size x size windows at its own scale, evenly spread, overlapping by half or more. keep: as it is.
    """
    whole, (h, w, _), size = Image.fromarray(image), image.shape, settings.size
    if settings.fit == "crop":
        side = min(h, w)
        left, top = (w - side) // 2, (h - side) // 2
        yield "", whole.crop((left, top, left + side, top + side)).resize((size, size), BICUBIC)
    elif settings.fit == "aspect":
        scale = size / min(h, w)
        yield "", whole.resize((max(size, round(w * scale)), max(size, round(h * scale))), BICUBIC)
    elif settings.fit == "tiles":
        for i, top in enumerate(tile_starts(h, size)):
            for j, left in enumerate(tile_starts(w, size)):
                yield f"#{i},{j}", whole.crop((left, top, min(left + size, w), min(top + size, h)))
    else:
        yield "", whole


def tile_starts(length: int, size: int) -> list[int]:
    """Returns the fewest starts of windows that cover `length`, each overlapping the next by at least half."""
    if length <= size:
        return [0]
    count = -(-2 * (length - size) // size) + 1
    return [round(k * (length - size) / (count - 1)) for k in range(count)]


def _encode(image: Image.Image, settings: Settings) -> bytes:
    out = io.BytesIO()
    options = {"quality": settings.quality, "subsampling": 0} if settings.image_format == "jpeg" else {}
    image.save(out, format=settings.image_format, **options)
    return out.getvalue()
