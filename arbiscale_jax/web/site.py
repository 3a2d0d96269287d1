"""Puts the parts of a server together."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from arbiscale_jax.inference import Model
from arbiscale_jax.web.job_board import JobBoard
from arbiscale_jax.web.latent_room import LatentRoom
from arbiscale_jax.web.limits import Limits
from arbiscale_jax.web.picture_store import PictureStore
from arbiscale_jax.web.presence import Presence
from arbiscale_jax.web.result_store import ResultStore
from arbiscale_jax.web.shelf import Shelf
from arbiscale_jax.web.views import View
from arbiscale_jax.web.worker import Worker

UPLOADS = 8  # files that are received at the same time; each is in memory


@dataclass
class Site:
    """Holds the parts of a server that its routes use."""

    limits: Limits
    pictures: PictureStore
    results: ResultStore
    room: LatentRoom
    worker: Worker
    board: JobBoard
    presence: Presence
    encoded: Shelf[bytes]  # windows as PNG files
    scratch: Path  # a folder for files while they are sent
    wanted: Counter[View] = field(default_factory=Counter)  # requests for windows of each view that wait
    uploads: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, UPLOADS))
    closing: Callable[[], bool] = field(default=lambda: False)  # whether the server is about to stop
    cleaning: ExitStack = field(
        default_factory=ExitStack
    )  # what deletes the things that were stored for this run alone

    def close(self) -> bool:
        """Cancels all work, deletes what was stored for this run alone, and tells whether the worker has stopped."""
        stopped = self.worker.close()
        self.cleaning.close()
        return stopped


def make_site(
    upscaler: Model | None, generator: Model | None, limits: Limits | None = None, store: Path | None = None
) -> Site:
    """Makes the parts of a server, and starts its worker.

    Args:
      upscaler: the model that upscales, or None.
      generator: the model that generates, or None.
      limits: how much the server takes and holds.
      store: the folder for pictures and results, which a later server finds again; None means a temporary one, which
        is deleted at the end.
    """
    limits, cleaning = limits or Limits(), ExitStack()
    scratch = Path(cleaning.enter_context(tempfile.TemporaryDirectory(prefix="arbiscale_", ignore_cleanup_errors=True)))
    folder = scratch / "store" if store is None else store
    pictures, results = PictureStore(folder / "pictures", limits), ResultStore(folder / "results", limits.result_bytes)
    room, worker = LatentRoom(upscaler, generator, pictures, limits), Worker()
    board = JobBoard(room, worker, results, limits)
    parts: dict[str, Any] = dict(presence=Presence(board.leave, limits.leaving_seconds), scratch=scratch)
    encoded = Shelf[bytes](limits.encoded_bytes, len)
    return Site(limits, pictures, results, room, worker, board, encoded=encoded, cleaning=cleaning, **parts)
