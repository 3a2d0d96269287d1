"""Keeps arrays of examples in memory-mapped .npy files, which are written in order and read in any order.

An interrupted writer continues where it was. A store is a folder with one file NAME.npy, float32 [num, ...], for each
array, identity.json, which says what the examples were made from, and progress.json, which says how many are finished.
The name of the folder is a hash of the identity, so examples that were made from anything else are never read.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime import locks
from arbiscale_jax.runtime.whole_files import write_text

from . import metadata

IDENTITY, PROGRESS, LOCK = "identity.json", "progress.json", ".lock"


def store_folder(root: Path | str, identity: Mapping[str, Any]) -> Path:
    """Returns the folder of a store, ROOT/HASH; the hash covers everything in `identity`, which JSON can represent."""
    text = json.dumps(identity, sort_keys=True)
    return Path(root).expanduser() / hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(folder: Path) -> int:
    """Returns the number of examples that are written, or 0 if there is no store.

    Raises:
      UserError: if progress.json is damaged.
    """
    if not (folder / PROGRESS).exists():
        return 0
    return metadata.read(folder / PROGRESS, f"delete {folder}").member("examples").count()


@contextmanager
def alone(folder: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Locks a store for writing, and waits while another process holds the lock; a process that dies releases it.

    Args:
      folder: the store, which is made if it is missing.
      wait: called once before waiting.

    Raises:
      UserError: if the folder cannot be written.
    """
    with ExitStack() as opened:
        with _writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context((folder / LOCK).open("a"))
            if not locks.take(file):
                wait()
                locks.take(file, wait=True)
        yield


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turns an OSError into the UserError of a store that cannot be written."""
    try:
        yield
    except OSError as e:
        raise UserError(
            f"data.latent_cache={folder.parent} cannot be written ({e.strerror}); set another folder."
        ) from e


class Writer:
    """Writes the examples of a store in order; examples before the last `commit` survive an interruption."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], num: int, shapes: Mapping[str, tuple[int, ...]]):
        """Makes a store, or continues an unfinished one.

        Args:
          folder: the store.
          identity: what the examples are made from.
          num: number of examples.
          shapes: shape of each array, by name, without the leading axis of examples.

        Raises:
          UserError: if the files cannot be written or the disk has no room for them.
        """
        self.folder, self.done = folder, finished(folder)
        with _writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not self.done:
                need = 4 * num * sum(int(np.prod(shape)) for shape in shapes.values())
                if need > (free := shutil.disk_usage(folder).free):
                    raise UserError(
                        f"The latents need {need / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left; lower "
                        "data.latent_cache_views or set another data.latent_cache."
                    )
                write_text(folder / IDENTITY, json.dumps(identity, indent=1, sort_keys=True) + "\n")
            self._arrays = {name: self._open(name, (num, *shape)) for name, shape in shapes.items()}

    def _open(self, name: str, shape: tuple[int, ...]) -> np.memmap:
        path = self.folder / f"{name}.npy"
        if not self.done:
            return np.lib.format.open_memmap(path, "w+", np.float32, shape)
        array = _open(path, "r+")
        if array.shape != shape or self.done > len(array):
            raise _damaged(path, f"it has the shape {array.shape}, not {shape}, with {self.done} examples written")
        return array

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the next n examples; each array is [n, ...]."""
        n = len(next(iter(arrays.values())))
        for name, array in self._arrays.items():
            array[self.done : self.done + n] = arrays[name]
        self.done += n

    def commit(self) -> None:
        """Makes sure that everything added so far survives an interruption."""
        for array in self._arrays.values():
            array.flush()
        write_text(self.folder / PROGRESS, json.dumps({"examples": self.done}) + "\n")


class Reader:
    """Reads the examples of a finished store by index; each is {name: float32 array}."""

    def __init__(self, folder: Path):
        """Opens a store.

        Raises:
          UserError: if a file is missing or damaged.
        """
        paths = sorted(folder.glob("*.npy"))
        self._arrays = {path.stem: _open(path, "r") for path in paths}
        if not paths or len({len(array) for array in self._arrays.values()}) > 1:
            lengths = ", ".join(f"{name}.npy {len(array)}" for name, array in self._arrays.items())
            raise _damaged(folder, f"its arrays must have one length, got {lengths or 'no array'}")
        if (done := finished(folder)) > len(self):
            raise _damaged(folder / PROGRESS, f"examples is {done}, and the arrays have {len(self)}")

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: np.array(array[index]) for name, array in self._arrays.items()}


def _open(path: Path, mode: str) -> np.memmap:
    """Opens an array of a store, or raises UserError if the file holds none."""
    try:
        array = np.lib.format.open_memmap(path, mode)
    except Exception as e:  # numpy parses the header as Python
        raise _damaged(path, metadata.one_line(e)) from e
    if array.dtype != np.float32 or not array.ndim:
        raise _damaged(path, f"it must be an array of float32, got {array.dtype} of shape {array.shape}")
    return array


def _damaged(path: Path, why: str) -> UserError:
    """Makes the error of a store that cannot be read."""
    folder = path if path.is_dir() else path.parent
    return UserError(f"The latents in {path} cannot be read ({why}); delete {folder}.")
