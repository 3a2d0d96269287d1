"""Keeps the results of finished jobs on disk, as arrays without loss, and what is known of the jobs."""

import json
import re
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.web.failures import Missing

RECORD = "job.json"
JOB = r"[0-9a-f]{32}"  # the name of a job
_UNFINISHED = ".part"


class ResultStore:
    """Stores results in a folder; those of jobs that were finished are there again after a restart.

    Args:
      folder: the folder, which is made.
      most: the bytes that all results may have together; the oldest are forgotten.
    """

    def __init__(self, folder: Path, most: int):
        self._folder, self._most, self._lock = folder, most, threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"*{_UNFINISHED}"):
            shutil.rmtree(path, ignore_errors=True)
        self._sizes: dict[str, int] = {}
        for path in sorted(folder.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime):
            if re.fullmatch(JOB, path.parent.name):
                self._sizes[path.parent.name] = _nbytes(path.parent)

    def records(self) -> list[dict]:
        """Returns what is known of each finished job, the oldest first; what cannot be read is left out."""
        found = []
        with self._lock:
            for name in self._sizes:
                with suppress(OSError, ValueError):
                    found.append(json.loads((self._folder / name / RECORD).read_text()))
        return found

    def begin(self, job: str, shapes: Sequence[tuple[int, ...]], dtype: np.dtype) -> "ResultWriter":
        """Starts to write the results of a job.

        Args:
          job: its name.
          shapes: [h, w, c] of each result.
          dtype: uint8 or uint16.

        Raises:
          UserError: if all the space for results, or what is free of the disk, is too small.
        """
        total = sum(int(np.prod(shape)) for shape in shapes) * dtype.itemsize
        free = shutil.disk_usage(self._folder).free
        if total > min(self._most, free):
            raise UserError(
                f"The results need {total / 1e9:.1f} GB, and the server has {min(self._most, free) / 1e9:.1f} GB for "
                "them; ask for fewer or smaller ones."
            )
        with self._lock:
            while self._sizes and total + sum(self._sizes.values()) > self._most:
                self.remove(next(iter(self._sizes)))
        return ResultWriter(self, self._folder / f"{job}{_UNFINISHED}", shapes, dtype)

    def finish(self, part: Path, record: dict) -> None:
        """Makes the results of a job known; `ResultWriter.finish` calls it."""
        (part / RECORD).write_text(json.dumps(record))
        with self._lock:
            final = part.with_suffix("")
            part.rename(final)
            self._sizes[final.name] = _nbytes(final)

    def array(self, job: str, number: int) -> np.ndarray:
        """Returns a result [h, w, c], which is read from the disk as it is used.

        Raises:
          Missing: if there is none.
        """
        with self._lock:
            path = self._folder / job / f"{number}.npy"
            if job not in self._sizes or not path.is_file():
                raise Missing("There is no such result; it was removed, or forgotten to make room. Run the job again.")
            return np.load(path, mmap_mode="r")

    def has(self, job: str) -> bool:
        """Tells whether the results of a job are there."""
        with self._lock:
            return job in self._sizes

    def remove(self, job: str) -> None:
        """Deletes the results of a job, if there are any."""
        with self._lock:
            if self._sizes.pop(job, None) is not None:
                shutil.rmtree(self._folder / job, ignore_errors=True)


class ResultWriter:
    """Writes the results of one job row by row; used as a context, it deletes them unless they were finished."""

    def __init__(self, store: ResultStore, part: Path, shapes: Sequence[tuple[int, ...]], dtype: np.dtype):
        self._store, self._part, self._finished = store, part, False
        part.mkdir()
        for i, shape in enumerate(shapes):
            with (part / f"{i}.npy").open("wb") as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if not self._finished:
            shutil.rmtree(self._part, ignore_errors=True)

    def append(self, number: int, rows: np.ndarray) -> None:
        """Appends rows [n, w, c] to a result."""
        with (self._part / f"{number}.npy").open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)

    def finish(self, record: dict) -> None:
        """Keeps the results, with what is known of the job."""
        self._store.finish(self._part, record)
        self._finished = True


def _nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
