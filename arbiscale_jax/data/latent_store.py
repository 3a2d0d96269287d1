"""Arrays of examples in memory-mapped .npy files: written once in order, resumed after an interruption, read at random.

A store is a folder: one NAME.npy [num, ...] float32 an array, identity.json (what the examples were made from) and
progress.json (how many are finished). Its own folder's name is a hash of that identity, so examples that were made
from anything else are never read.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from arbiscale_jax import locks
from arbiscale_jax.errors import UserError
from arbiscale_jax.whole_files import write_text

IDENTITY, PROGRESS, LOCK = "identity.json", "progress.json", ".lock"


def store_folder(root: Path | str, identity: Mapping[str, Any]) -> Path:
    """Returns the store's folder below root: ROOT/HASH, of everything in `identity` (JSON-like)."""
    text = json.dumps(identity, sort_keys=True)
    return Path(root).expanduser() / hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(folder: Path) -> int:
    """Returns the number of examples that are written, 0 where there is no store."""
    try:
        return json.loads((folder / PROGRESS).read_text())["examples"]
    except (OSError, ValueError, KeyError):
        return 0


@contextmanager
def alone(folder: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Holds a store for writing, after `wait` and the end of another process that does; its death ends it as well.

    Raises: UserError if the folder cannot be written.
    """
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
        if not locks.take(file):
            wait()
            locks.take(file, wait=True)
    with file:
        yield


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise UserError(
            f"data.latent_cache={folder.parent} cannot be written ({e.strerror}); set another folder."
        ) from e


class Writer:
    """Writes a store's examples in order; what `commit` has confirmed survives an interruption."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], num: int, shapes: Mapping[str, tuple[int, ...]]):
        """Opens or continues a store of `num` examples with arrays of `shapes` (without the leading axis).

        Raises: UserError if the files cannot be written or the disk has no room for them.
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
            mode = "r+" if self.done else "w+"
            self._arrays = {
                name: np.lib.format.open_memmap(folder / f"{name}.npy", mode, np.float32, (num, *shape))
                for name, shape in shapes.items()
            }

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the next examples, [n, ...] each."""
        n = len(next(iter(arrays.values())))
        for name, array in self._arrays.items():
            array[self.done : self.done + n] = arrays[name]
        self.done += n

    def commit(self) -> None:
        """Makes what was added last."""
        for array in self._arrays.values():
            array.flush()
        write_text(self.folder / PROGRESS, json.dumps({"examples": self.done}) + "\n")


class Reader(Sequence):
    """A finished store's examples by index: {name: float32 array}."""

    def __init__(self, folder: Path):
        """Raises: UserError if a file is missing or damaged."""
        try:
            self._arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
        except (OSError, ValueError) as e:
            raise UserError(f"The latents in {folder} cannot be read ({e}); delete that folder.") from e

    def __len__(self) -> int:
        return min((len(array) for array in self._arrays.values()), default=0)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: np.array(array[index]) for name, array in self._arrays.items()}
