"""Worker processes that end with the one that they work for, and not before."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker

GRACE = 30.0  # seconds that a loader goes on after SIGTERM


def end_with_parent() -> None:
    """Makes this worker process end when its parent does, even by SIGKILL."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def follow_parent(index: int, count: int) -> None:
    """Prepares a loader process: it ends with its parent; a signal to the group leaves it be.

    Ctrl-C and many schedulers signal every process; the parent then saves a checkpoint, for which it may need the batch
    that it waits for, and closes its loaders itself. What such a process leaves in shared memory is removed by
    multiprocessing's resource tracker, which outlives all processes that it serves.
    Args: index, count, of the loaders (unused; grain passes them).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _exit_later(GRACE))
    end_with_parent()


def start_quiet_tracker() -> None:
    """Starts the resource tracker, so that it says nothing of the batches that lie ready in shared memory at the end.

    It removes them, as ever; its warning of leaked objects would make the end of every run look like a fault.
    """
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _exit_later(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
