"""Protects a run from being lost: one process per directory, enough room on the disk, and a checkpoint on a signal."""

import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime import locks

LOCK = ".lock"


@contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Locks a run's directory, so that no second run writes there; the kernel frees the lock when the process dies.

    The file .lock names the holder. In a run over several processes only the first one holds the lock.

    Raises:
      UserError: if another process holds the lock, which the message names, or the file cannot be opened.
    """
    if jax.process_index() != 0:
        yield
        return
    path = run_dir / LOCK
    file = _acquire(path)
    try:
        with suppress(OSError):  # the text is only informative; if the disk is full, later writes report it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # removed while the lock is still held
        file.close()


def _acquire(path: Path):
    """Opens and locks the file at `path`, again if its last holder removed it in between."""
    while True:
        with ExitStack() as opened:  # closes the file, unless the function returns it
            try:
                file = opened.enter_context(path.open("a+b", buffering=0))
                mine = locks.take(file)
            except OSError as e:
                raise UserError(f"{path} cannot be locked ({e.strerror}); remove it or set another --workdir.") from e
            if not mine:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "another process"
                raise UserError(
                    f"The work directory {path.parent} is in use by {holder}; wait for it, stop it, or set another "
                    "--workdir."
                )
            with suppress(FileNotFoundError):  # the file was removed after it was opened
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    opened.pop_all()
                    return file


def tree_bytes(tree) -> int:
    """Returns the number of bytes of a tree of arrays or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def check_space(run_dir: Path, num_bytes: int) -> None:
    """Raises UserError if the disk has no room for `num_bytes` more of a run's checkpoints."""
    free = shutil.disk_usage(run_dir).free
    if free < num_bytes:
        raise UserError(
            f"The checkpoints of {run_dir} need {num_bytes / 1e9:.3g} GB more and its disk has {free / 1e9:.3g} GB "
            "left; free some, lower --config.train.keep or set another --workdir."
        )


@contextmanager
def stop_signals(say: Callable[[str], None]) -> Iterator[Callable[[int], bool]]:
    """Notes the first SIGINT or SIGTERM, so that the loop ends with a checkpoint; a second one stops the run at once.

    Yields:
      A function stopping(step) to call after every step, which tells whether to stop. In a run over several processes,
        a signal to any of them stops all of them at the same step, on which JAX's preemption service lets them agree
        within a second or two.
    """
    if jax.process_count() > 1:
        with _forwarding(say):
            yield multihost_utils.reached_preemption_sync_point
        return
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return

    def handle(number, frame):
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)
        say("Stopping after this step with a checkpoint; a second signal stops at once.")

    with _handlers(handle, signal.SIGINT, signal.SIGTERM):
        yield lambda step: bool(stopped)


@contextmanager
def _forwarding(say) -> Iterator[None]:
    """Turns Ctrl-C into the SIGTERM that JAX's preemption service waits for."""

    def handle(number, frame):
        say("Stopping all processes with a checkpoint.")
        os.kill(os.getpid(), signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handlers(handle, signal.SIGINT):
        yield


@contextmanager
def _handlers(handle, *numbers) -> Iterator[None]:
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
