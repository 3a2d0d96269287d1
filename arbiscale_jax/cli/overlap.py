"""Reads the next files and writes the last results in threads, while the model computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Full, Queue
from typing import Any, TypeVar

import numpy as np

WRITERS = 4  # results that are encoded at the same time
BANDS = 2  # parts of a result that wait for its writer; each may have many MB
_SECONDS = 0.1  # how long a thread waits before it asks whether the other has ended

Item = TypeVar("Item")
Read = TypeVar("Read")
Take = Callable[[Iterator[np.ndarray]], Any]
Write = Callable[[Iterable[np.ndarray], Take], None]


def read_ahead(items: Sequence[Item], read: Callable[[Item], Read]) -> Iterator[tuple[Item, Read]]:
    """Yields (item, read(item)) for each item; the next is read in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, item) for item in items[:1]]
        for number, item in enumerate(items):
            found = waiting.pop().result()
            waiting += [pool.submit(read, other) for other in items[number + 1 : number + 2]]
            yield item, found


@contextmanager
def writing(most: int = WRITERS) -> Iterator[Write]:
    """Writes results in threads, each of which begins as soon as its first rows are there.

    Args:
      most: the number of results that are written at the same time; a further one waits.

    Yields:
      A function write(rows, take): it iterates over `rows` here, and calls take(rows), which writes a file, in a
      thread. It returns when all rows have been handed over, which may be before the file is there. When the block
      ends, all files are there. If a writer fails, its exception is raised by this function or at the end of the block.
      If `rows` raises, take's iterator raises the same exception, so that it leaves no file.
    """
    running: deque[Future] = deque()

    def write(rows: Iterable[np.ndarray], take: Take) -> None:
        while running and (len(running) >= most or running[0].done()):
            running.popleft().result()
        bands: Queue = Queue(BANDS)
        future = pool.submit(take, _until_end(bands))
        running.append(future)
        try:
            for some in rows:
                _put(bands, some, future)
        except BaseException as e:
            _put(bands, e, future)
            raise
        _put(bands, None, future)

    with ThreadPoolExecutor(most) as pool:
        yield write
        while running:
            running.popleft().result()


def _put(bands: Queue, some: np.ndarray | BaseException | None, future: Future) -> None:
    """Hands over a part, None for the end, or an exception; raises the writer's own if it has failed."""
    while True:
        try:
            bands.put(some, timeout=_SECONDS)
            return
        except Full:
            if future.done():
                future.result()
                return


def _until_end(bands: Queue) -> Iterator[np.ndarray]:
    while (some := bands.get()) is not None:
        if isinstance(some, BaseException):
            raise some
        yield some
