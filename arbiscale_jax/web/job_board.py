"""Takes jobs, has them computed, and keeps what became of them."""

import logging
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import numpy as np

from arbiscale_jax.errors import UserError
from arbiscale_jax.web.failures import Missing, TooMany
from arbiscale_jax.web.jobs import GenerateRequest, Job, UpscaleRequest
from arbiscale_jax.web.latent_room import LatentRoom
from arbiscale_jax.web.limits import Limits
from arbiscale_jax.web.result_store import ResultStore
from arbiscale_jax.web.views import ImageView, PhotoView, View, parse_view
from arbiscale_jax.web.worker import Cancelled, Steps, Task, Worker

DENOISING = 16.0  # the work for a pixel of an input, where that for a pixel of an output is 1; for the share alone
STRIP_PIXELS = 2**18  # of a result that are rendered before the work of other clients may come between

logger = logging.getLogger(__name__)


class _Part(NamedTuple):
    """Describes a part of a job's work."""

    before: float  # share of the job that was done before
    share: float  # of the job, that the part makes
    seconds: float  # of computing before
    began: float  # by time.monotonic()


class JobBoard:
    """Holds the jobs of all clients; threads may share it.

    Args:
      room: the models and what they need.
      worker: computes.
      results: where results go; jobs whose results are there already are known as finished.
      limits: how much is taken.
    """

    def __init__(self, room: LatentRoom, worker: Worker, results: ResultStore, limits: Limits):
        self.room, self.worker, self.results, self.limits = room, worker, results, limits
        self._lock = threading.RLock()
        self._jobs = {job.id: job for job in map(Job.known, results.records()) if job is not None}
        self._tasks: dict[str, Task] = {}  # of jobs that have not ended

    def add(self, client: str, request: UpscaleRequest | GenerateRequest) -> Job:
        """Checks and queues a job.

        Raises:
          UserError: if the models cannot do it, or its results would be too large.
          Missing: if its picture is not stored.
          TooMany: if the client, or all clients together, have as many jobs as they may have.
        """
        upscales = isinstance(request, UpscaleRequest)
        job = self._upscaled(client, request) if upscales else self._generated(client, request)
        pixels = job.size[0] * job.size[1]
        if pixels > self.limits.output_pixels:
            raise UserError(
                f"A result of {job.size[0]} x {job.size[1]} pixels is larger than the {self.limits.output_pixels} that "
                "this server makes; ask for a smaller one, or look at windows of it."
            )
        with self._lock:
            mine = sum(not one.ended and one.client == client for one in self._jobs.values())
            if mine >= self.limits.jobs_per_client:
                raise TooMany(f"{mine} jobs of yours wait or run, as many as may; wait for one, or cancel it.")
            if len(self._tasks) >= self.limits.jobs:
                raise TooMany("The server has as many jobs as it takes; try again later.")
            self._forget_old(client)
            self._jobs[job.id] = job
            task = Task(client, partial(self._steps, job))
            self._tasks[job.id] = task
        task.future.add_done_callback(partial(self._ended, job))
        self.worker.submit(task)
        return job

    def find(self, name: str) -> Job:
        """Returns a job, and raises Missing if there is none of that name."""
        with self._lock:
            job = self._jobs.get(name)
            if job is None or (job.state == "done" and not self.results.has(name)):
                self._jobs.pop(name, None)
                raise Missing("There is no such job; it was removed, or forgotten to make room. Submit it again.")
            return job

    def ahead(self, job: Job) -> int:
        """Returns how many pieces of work come before a job that is queued."""
        task = self._tasks.get(job.id)
        return self.worker.ahead(task) if task else 0

    def of(self, client: str) -> list[Job]:
        """Returns the jobs of a client, the oldest first."""
        with self._lock:
            found = [job for job in self._jobs.values() if job.client == client]
        return sorted((job for job in found if job.state != "done" or self.results.has(job.id)), key=_created)

    def busy_pictures(self) -> set[str]:
        """Returns the pictures that jobs which have not ended need."""
        with self._lock:
            views = [parse_view(view) for job in self._jobs.values() if not job.ended for view in job.views[:1]]
        return {view.picture for view in views if isinstance(view, PhotoView)}

    def cancel(self, name: str) -> Job:
        """Cancels a job unless it has ended, and returns it; raises Missing if there is none of that name."""
        job = self.find(name)
        with self._lock:
            task = self._tasks.get(name)
        if task is not None:
            self._say(job, "cancelled")
            self.worker.cancel(task)
        return job

    def remove(self, name: str) -> None:
        """Cancels a job and forgets it and its results; raises Missing if there is none of that name."""
        self.cancel(name)
        with self._lock:
            self._jobs.pop(name, None)
        self.results.remove(name)

    def leave(self, client: str) -> None:
        """Cancels the jobs of a client that has left."""
        for job in self.of(client):
            if not job.ended:
                self.cancel(job.id)

    def _upscaled(self, client: str, request: UpscaleRequest) -> Job:
        one = self.room.pictures.find(request.picture)
        if request.samples > self.limits.samples:
            raise UserError(f"samples is at most {self.limits.samples} here, got {request.samples}.")
        views = [PhotoView(one.id, request.seed, i, request.restore) for i in range(request.samples)]
        self.room.check(views[0])
        size = request.output(one.height, one.width)
        return Job(client, request.model_dump(), size, [str(view) for view in views], one.bits)

    def _generated(self, client: str, request: GenerateRequest) -> Job:
        if request.first + request.num > self.limits.images:
            raise UserError(f"Images have numbers below {self.limits.images} here; lower num or first.")
        views = [ImageView(request.seed, request.first + i) for i in range(request.num)]
        self.room.check(views[0])
        size = request.size or self.room.base_size(views[0])
        return Job(client, request.model_dump(), (size[0], size[1]), [str(view) for view in views])

    def _steps(self, job: Job, task: Task) -> Steps:
        """Computes the results of a job; other clients' work may come between the strips of its results."""
        self._say(job, "running")
        views = [parse_view(view) for view in job.views]
        of_latents, of_pixels = self._work(job, views[0])
        total = of_latents + of_pixels * len(views)
        share, turn = of_latents / total / len(views), self.room.together(len(views))
        for first in range(0, len(views), turn):
            number = min(turn, len(views) - first)
            part = _Part(share * first, share * number, job.seconds, time.monotonic())
            self.room.sample(views[first], number, partial(_note, job, task, part))
            job.done = share * (first + number)
            yield
        shapes = [(*job.size, self._channels(view)) for view in views]
        with self.results.begin(job.id, shapes, np.dtype(f"uint{job.bits}")) as writer:
            step = max(64, STRIP_PIXELS // job.size[1] // 64 * 64)
            for i, view in enumerate(views):
                for top in range(0, job.size[0], step):
                    began = time.monotonic()
                    rows = min(step, job.size[0] - top)
                    writer.append(i, self.room.window(view, job.size, (top, 0, rows, job.size[1])))
                    job.done += of_pixels / total * rows / job.size[0]
                    job.seconds += time.monotonic() - began
                    yield
            with self._lock:
                task.check()
                writer.finish({**job.record(), "state": "done", "done": 1.0})
                self._say(job, "done")

    def _work(self, job: Job, view: View) -> tuple[float, float]:
        """Returns the work for the latents and for the pixels of one result."""
        height, width = self.room.base_size(view)
        return DENOISING * height * width * len(job.views), float(job.size[0] * job.size[1])

    def _channels(self, view: View) -> int:
        return self.room.pictures.find(view.picture).channels if isinstance(view, PhotoView) else 3

    def _say(self, job: Job, state) -> None:
        """Changes the state of a job, unless it has ended."""
        with self._lock:
            if not job.ended:
                job.state = state
                job.done = 1.0 if state == "done" else job.done

    def _ended(self, job: Job, future: Future) -> None:
        """Notes how a job ended; errors that are no mistakes of the user are bugs, and are logged."""
        with self._lock:
            self._tasks.pop(job.id, None)
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or isinstance(error, Cancelled):
            self._say(job, "cancelled")
        elif error is not None:
            said = isinstance(error, UserError | Missing)
            if not said:
                logger.error("A job failed.", exc_info=error)
            job.error = str(error) if said else "The server failed to compute this; its log says why."
            self._say(job, "failed")

    def _forget_old(self, client: str) -> None:
        """Forgets the oldest jobs of a client that have ended, where there are too many."""
        old = [job for job in self.of(client) if job.ended]
        for job in old[: max(0, len(old) - self.limits.results_per_client + 1)]:
            self._jobs.pop(job.id, None)
            self.results.remove(job.id)


def _note(job: Job, task: Task, part: _Part, done: int, parts: int) -> None:
    """Notes how far the sampling of latents is, and raises Cancelled if nobody wants them any more."""
    job.done = part.before + part.share * done / parts
    job.seconds = part.seconds + time.monotonic() - part.began
    task.check()


def _created(job: Job) -> float:
    return job.created
