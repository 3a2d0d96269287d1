"""Reads the images of records: serialized tf.train.Examples, or examples that TFDS has parsed."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import decode_image

from . import metadata, tf_example
from .set_info import REMEDY
from .small_pictures import measure_file

NAME = "name"  # the feature in which prepared sets keep the name of an image's file


class RecordSet(NamedTuple):
    """Holds the opened records of one split, from which a Source is made."""

    indices: np.ndarray  # numbers of the records that belong to the split, int [n]
    read: Callable[[int], np.ndarray]  # number of a record -> uint8 [h, w, 3]
    title: str  # what the set is called in messages
    files: tuple[Path, ...]  # the files that hold the records
    measure: Callable[[int], int | None]  # number of a record -> shorter side of its image, or None if unknown
    title_of: Callable[[int], str]  # number of a record -> the name that its image had as a file, or the number


class RecordReader:
    """Decodes the image of a record with Pillow to uint8 RGB [h, w, 3]; it can be sent to worker processes."""

    def __init__(self, records: Sequence[Any], image_of: Callable[[Any], bytes], title: str):
        self._records, self._image_of, self._title = records, image_of, title

    def __call__(self, index: int) -> np.ndarray:
        """Returns the image of a record; raises UserError if it cannot be read."""
        return decode_image(self._content(index), self._name(index))

    def measure(self, index: int) -> int | None:
        """Returns the shorter side of a record's image without decoding it, or None if it cannot be read."""
        try:
            return measure_file(io.BytesIO(self._content(index)))
        except UserError:
            return None

    def title_of(self, index: int) -> str:
        """Returns the name that a record's image had as a file, or the number where the record does not say it."""
        try:
            record = self._records[int(index)]
            name = (record if isinstance(record, Mapping) else tf_example.decode(record)).get(NAME, b"")
        except Exception:  # whoever decodes the image says why
            name = b""
        return os.fsdecode(name) if isinstance(name, bytes) and name else str(index)

    def _name(self, index: int) -> str:
        return f"Record {index} of {self._title}"

    def _content(self, index: int) -> bytes:
        try:
            return self._image_of(self._records[int(index)])
        except Exception as e:  # a damaged record may raise any error in three libraries
            raise UserError(f"{self._name(index)} cannot be read ({metadata.one_line(e)}); {REMEDY}.") from e


class ImageOf:
    """Returns one feature of a serialized tf.train.Example."""

    def __init__(self, feature: str):
        self._feature = feature

    def __call__(self, record: bytes) -> bytes:
        """Returns the encoded image of a record."""
        return tf_example.decode(record)[self._feature]


class Item:
    """Returns one feature of an example that TFDS has parsed."""

    def __init__(self, feature: str):
        self._feature = feature

    def __call__(self, example: dict) -> bytes:
        """Returns the encoded image of an example."""
        return example[self._feature]
