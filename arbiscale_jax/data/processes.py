"""Makes worker processes end when the process that started them ends, and not before."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker

GRACE = 30.0  # seconds that a loader continues after SIGTERM


def end_with_parent() -> None:
    """Makes this worker process end when its parent ends, even if the parent is killed by SIGKILL."""

    def wait(parent):
        parent.join()
        os._exit(1)

    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=wait, args=(parent,), daemon=True).start()


def follow_parent(index: int, count: int) -> None:
    """Prepares a loader process: it ends with its parent, but not at a signal to the whole process group.

    Ctrl-C and many schedulers signal every process. The parent then saves a checkpoint, for which it may need the batch
    that it waits for, and closes its loaders itself. Shared memory that a loader leaves behind is freed by the resource
    tracker of multiprocessing, which lives longer than all processes that use it.

    Args:
      index: number of this loader; unused, but grain passes it.
      count: number of loaders; unused as well.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _exit_later(GRACE))
    end_with_parent()


def start_quiet_tracker() -> None:
    """Starts the resource tracker of multiprocessing with its warnings switched off.

    At the end of a run, batches that are ready in shared memory are not used any more. The tracker removes them either
    way, but its warning about leaked objects would make the end of every run look like an error.
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
    """Ends this process after some seconds."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
