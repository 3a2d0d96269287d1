"""Runs the work of all clients in one thread, since a device computes one program at a time."""

import logging
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from arbiscale_jax.web.fair_queue import FairQueue

logger = logging.getLogger(__name__)


class Cancelled(Exception):
    """Says that nobody waits for a piece of work any more."""


Steps = Generator[None, None, Any]  # yields where the work of other clients may come between; returns the result


class Task:
    """Holds a piece of work that is done in steps.

    Args:
      client: whose work it is.
      make: makes the generator of steps out of the task, whose `check` it calls where it can be cancelled.
      urgent: whether it comes before the client's work that is not.
    """

    def __init__(self, client: str, make: "Callable[[Task], Steps]", urgent: bool = False):
        self.client, self.urgent, self.future = client, urgent, Future[Any]()
        self._make: Callable[[Task], Steps] | None = make
        self._steps: Steps | None = None
        self._unwanted = threading.Event()

    def check(self) -> None:
        """Raises Cancelled if the work is no longer wanted."""
        if self._unwanted.is_set():
            raise Cancelled

    def unwanted(self) -> None:
        """Says that the work is no longer wanted; `Worker.cancel` calls it."""
        self._unwanted.set()

    def step(self) -> bool:
        """Does one step, and returns whether the work has ended."""
        try:
            self.check()
            if self._steps is None:
                if self._make is None or not self.future.set_running_or_notify_cancel():
                    return True
                self._steps, self._make = self._make(self), None
            next(self._steps)
        except StopIteration as e:
            self.future.set_result(e.value)
        except BaseException as e:  # whoever waits gets it, and the worker goes on with the work of others
            self.end(e)
        else:
            return False
        self._steps = None
        return True

    def end(self, error: BaseException) -> None:
        """Ends the work with an error."""
        if self._steps is not None:
            self._steps.close()
        self._steps = self._make = None
        if not self.future.cancelled() and not self.future.done():
            self.future.set_exception(error)


class Worker:
    """Owns the thread that computes, and the queue of what it computes."""

    def __init__(self):
        self._queue: FairQueue[Task] = FairQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> Task:
        """Queues a task and returns it; `task.future` gets its result."""
        with self._changed:
            if self._closed:
                task.end(Cancelled())
            else:
                self._queue.add(task.client, task, urgent=task.urgent)
                self._changed.notify()
        return task

    def cancel(self, task: Task) -> None:
        """Ends a task: at once if it waits, and after the program that is computed if it runs."""
        task.unwanted()
        with self._changed:
            waiting = self._queue.remove(task.client, task)
        if waiting:
            task.end(Cancelled())

    def number(self, client: str | None = None, *, urgent: bool) -> int:
        """Returns how many tasks wait that are urgent, or are not: of one client, or of all."""
        with self._changed:
            if client is not None:
                return sum(task.urgent == urgent for task in self._queue.waiting(client))
            return sum(task.urgent == urgent for task in self._queue)

    def ahead(self, task: Task) -> int:
        """Returns how many tasks are handled before one that waits."""
        with self._changed:
            return self._queue.ahead(task.client, task)

    def close(self, seconds: float = 2.0) -> bool:
        """Cancels everything, and returns whether the thread has ended within so many seconds."""
        with self._changed:
            self._closed = True
            left = list(self._queue)
            for task in left:
                self._queue.remove(task.client, task)
            self._changed.notify()
        for task in left:
            task.unwanted()
            task.end(Cancelled())
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (found := self._queue.take()):
                    if self._closed:
                        return
                    self._changed.wait()
            _, task = found
            ended = task.step()
            with self._changed:
                if not ended and not self._closed:
                    self._queue.put_back(task.client, task, urgent=task.urgent)
            if not ended and self._closed:
                task.end(Cancelled())
            del task, found  # what it computed is freed while the thread waits
