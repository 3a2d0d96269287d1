"""Keeps the pictures that clients upload, as the files that they were, under the hashes of their content."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Container
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from arbiscale_jax import images
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import remove_leftovers, replacing
from arbiscale_jax.web.failures import Missing, TooMany
from arbiscale_jax.web.limits import Limits
from arbiscale_jax.web.shelf import Shelf
from arbiscale_jax.web.views import PICTURE

_FLAG = " (run_sample.py: --max-pixels)"


@dataclass
class StoredPicture:
    """Describes a picture that is stored."""

    id: str
    height: int
    width: int
    channels: int  # 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha
    bits: int  # per channel, 8 or 16
    format: str  # of its file
    frames: int  # of which the first alone is used
    nbytes: int  # of its file
    used: float  # when it was last used, in seconds since 1970
    clients: list[str] = field(default_factory=list)  # whose picture it is


class PictureStore:
    """Stores pictures in a folder; what it finds there is known again after a restart.

    Args:
      folder: the folder, which is made.
      limits: how much is stored.
    """

    def __init__(self, folder: Path, limits: Limits):
        self._folder, self._limits = folder, limits
        self._lock = threading.RLock()
        self._decoded: Shelf[images.Picture] = Shelf(limits.decoded_bytes, lambda one: one.pixels.nbytes)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self._known: dict[str, StoredPicture] = {}
        for path in folder.glob("*.json"):
            if re.fullmatch(PICTURE, path.stem) and path.with_suffix("").is_file():
                with suppress(OSError, ValueError, TypeError):  # another version has written it
                    self._known[path.stem] = StoredPicture(**json.loads(path.read_text()))

    def add(self, client: str, content: bytes, busy: Container[str] = ()) -> StoredPicture:
        """Checks and stores the file of a picture.

        Args:
          client: whose picture it is.
          content: the bytes of the file.
          busy: pictures that must not be forgotten to make room.

        Returns:
          The picture; the same one if it is stored already.

        Raises:
          UserError: if the file is damaged, no image of a format that is read, or too large.
          TooMany: if the client has as many pictures as it may have.
        """
        name = hashlib.sha256(content).hexdigest()[:32]
        with self._lock:
            mine = sum(client in one.clients for one in self._known.values())
            known = self._known.get(name)
            if (known is None or client not in known.clients) and mine >= self._limits.pictures_per_client:
                raise TooMany(f"{mine} pictures are stored for you, as many as may be; remove some of them first.")
        if known is None:
            known = self._examined(name, content)
        with self._lock:
            known = self._known.setdefault(name, known)
            known.used = time.time()
            if client not in known.clients:
                known.clients.append(client)
            if not self._path(name).is_file():
                self._make_room(known.nbytes, busy, name)
                with replacing(self._path(name)) as part:
                    part.write_bytes(content)
            self._write(known)
            return known

    def find(self, name: str) -> StoredPicture:
        """Returns a picture that is stored.

        Raises:
          Missing: if it is not.
        """
        with self._lock:
            if name not in self._known:
                raise Missing("There is no such picture; it was removed, or forgotten to make room. Upload it again.")
            self._known[name].used = time.time()
            return self._known[name]

    def read(self, name: str) -> images.Picture:
        """Returns the pixels and the metadata of a picture; raises Missing if it is not stored."""
        self.find(name)
        picture = self._decoded.get(name)
        if picture is None:
            try:
                content = self._path(name).read_bytes()
            except OSError as e:
                raise Missing("The picture has just been removed; upload it again.") from e
            picture = images.read(content, self._limits.input_pixels)
            self._decoded.put(name, picture)
        return picture

    def of(self, client: str) -> list[StoredPicture]:
        """Returns the pictures of a client."""
        with self._lock:
            return [one for one in self._known.values() if client in one.clients]

    def remove(self, client: str, name: str) -> None:
        """Takes a picture from a client, and deletes it if it is no other's.

        Raises:
          Missing: if the client has no such picture.
        """
        with self._lock:
            known = self.find(name)
            if client not in known.clients:
                raise Missing("You have no such picture.")
            known.clients.remove(client)
            if known.clients:
                self._write(known)
            else:
                self._forget(name)

    def _examined(self, name: str, content: bytes) -> StoredPicture:
        """Decodes a file, and describes what it holds."""
        try:
            picture = images.read(content, self._limits.input_pixels)
        except UserError as e:  # the reader was written for files and flags
            raise UserError(str(e).replace("The image in memory", "The file").replace(_FLAG, "")) from e
        height, width, channels = picture.pixels.shape
        if min(height, width) < 2:
            raise UserError(f"The picture has {height} x {width} pixels; upscaling needs at least 2 x 2 to go by.")
        try:
            frames = len(images.read_frames(content, self._limits.input_pixels))
        except UserError:
            frames = 1  # the first is intact, and the others are not counted
        self._decoded.put(name, picture)
        bits, kind = 8 * picture.pixels.dtype.itemsize, picture.metadata.format or ""
        return StoredPicture(name, height, width, channels, bits, kind, frames, len(content), time.time())

    def _make_room(self, nbytes: int, busy: Container[str], new: str) -> None:
        """Forgets pictures until so many bytes fit, those that were used longest ago first."""
        idle = sorted((one for one in self._known.values() if one.id not in busy and one.id != new), key=_used)
        total = nbytes + sum(one.nbytes for one in self._known.values() if one.id != new)
        for one in idle:
            if total <= self._limits.picture_bytes:
                return
            total -= one.nbytes
            self._forget(one.id)

    def _forget(self, name: str) -> None:
        del self._known[name]
        self._decoded.drop(lambda key: key == name)
        self._path(name).with_suffix(".json").unlink(missing_ok=True)
        self._path(name).unlink(missing_ok=True)

    def _write(self, known: StoredPicture) -> None:
        with replacing(self._path(known.id).with_suffix(".json")) as part:
            part.write_text(json.dumps(asdict(known)))

    def _path(self, name: str) -> Path:
        return self._folder / name


def _used(one: StoredPicture) -> float:
    return one.used
