"""Waiting with an end: for processes that a test starts, and for what they do."""

import subprocess
import threading
import time
from collections.abc import Callable

LIMIT = 300.0  # seconds; far more than anything takes, since other work may share the machine


def run(command, **options) -> subprocess.CompletedProcess:
    """Runs a command to its end, or kills it and fails after LIMIT; its output is captured as text."""
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, **options)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Asks again and again until `condition` holds, and fails after LIMIT, naming what it waited for."""
    end, pause = time.monotonic() + LIMIT, threading.Event()
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT:g} s for {what}"
        pause.wait(0.02)


def ends(processes: list[subprocess.Popen]) -> list[str]:
    """Waits for all processes together, kills what is left of them after LIMIT, and returns what they printed."""
    end = time.monotonic() + LIMIT
    try:
        return [process.communicate(timeout=max(0.0, end - time.monotonic()))[0] for process in processes]
    finally:
        for process in processes:
            process.kill()  # does nothing to one that has ended
