"""What happens to runs: killed, half-written, on a full disk, started twice."""

import errno
import multiprocessing
import os
import signal
import sys
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from benchmark_modules import module
from test_parallel import environment  # noqa: F401 (a fixture)
from waiting import LIMIT, run

from arbiscale_jax.artifacts import storage
from arbiscale_jax.data import processes
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime import locks
from arbiscale_jax.training import checkpoint, reporting, survival, train
from arbiscale_jax.training.clock import Clock
from arbiscale_jax.training.optimizer import make_optimizer
from arbiscale_jax.training.state import create_state

ROOT = Path(__file__).resolve().parents[1]


def test_a_killed_run_resumes_to_the_same_bits(environment, tmp_path):  # noqa: F811
    options = ["--config", f"{ROOT / 'benchmarks' / 'toy_config.py'}:plain", "--output", tmp_path / "out"]
    options += ["--kills", "1", "--steps", "12", "--workers", "1"]
    command = [sys.executable, ROOT / "benchmarks" / "kill_and_resume.py", *options]
    out = run(command, env=environment)
    log = tmp_path / "out" / "log.txt"
    assert out.returncode == 0, out.stdout + out.stderr + log.read_text()
    assert "arrays equal bit for bit after 1 kills" in out.stdout
    assert out.stdout.count("killed at step") == 1


# --- one process a directory ---


def test_a_directory_is_held_by_one_run(toy, tmp_path):
    with survival.lock(tmp_path):
        before = sorted(p.name for p in tmp_path.iterdir())
        with pytest.raises(UserError, match=f"is in use by process {os.getpid()} on .*set another --workdir"):
            train(toy(2), tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == before == [survival.LOCK]
    assert list(tmp_path.iterdir()) == []
    train(toy(2), tmp_path)
    assert not (tmp_path / survival.LOCK).exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = f"""
import os, signal, pathlib
from arbiscale_jax.training import survival
with survival.lock(pathlib.Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    out = run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert out.returncode == -signal.SIGKILL and "process" in (tmp_path / survival.LOCK).read_text()
    with survival.lock(tmp_path):
        assert (tmp_path / survival.LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_refused_start_leaves_the_other_runs_files_alone(toy, tmp_path):
    run = tmp_path / "run"
    with checkpoint.provisional(run, (storage.CONFIG, storage.FROZEN)) as begun:
        (run / storage.FROZEN).write_text("of the first")
        with pytest.raises(UserError, match="in use"):
            train(toy(2), run)
        assert (run / storage.FROZEN).read_text() == "of the first"
        begun()


def test_a_file_system_without_locks_or_room_is_told(tmp_path, monkeypatch, caplog):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    number = errno.ENOLCK
    with survival.lock(tmp_path):
        assert "let no second process write there" in caplog.text
    number = errno.EIO
    with pytest.raises(UserError, match=".lock cannot be locked .Input/output error.; remove it or set another"):
        with survival.lock(tmp_path):
            pass


# --- the disk ---


def test_a_full_disk_is_refused_before_training(toy, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(survival.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=1))
    with pytest.raises(UserError, match=r"The checkpoints of .*run need .* GB more and its disk has 1e-09 GB left"):
        train(toy(2), tmp_path / "run")
    assert not (tmp_path / "run").exists() and asked == [tmp_path / "run"]
    tree = {"w": jnp.zeros((3, 4)), "n": np.zeros((), np.int32)}
    assert survival.tree_bytes(tree) == 52


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("RESOURCE_EXHAUSTED: Error")])
def test_a_disk_that_fills_during_training_is_one_sentence(toy, tmp_path, monkeypatch, error):
    full = [True]

    def save(manager, state, *args):
        if int(state.step) > 2 and full:
            raise error
        return actual(manager, state, *args)

    actual = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", save)
    train(toy(2), tmp_path)
    with pytest.raises(UserError, match="The disk of .* is full, .*; the last good checkpoint is step 2"):
        train(toy(4), tmp_path)
    full.clear()
    assert train(toy(4), tmp_path)["step"] == 4
    with pytest.raises(ValueError, match="another"), checkpoint.open_manager(tmp_path, keep=1):
        raise ValueError("another")


def test_a_half_written_checkpoint_is_never_chosen(toy, tmp_path):
    train(toy(2), tmp_path)
    folder = tmp_path / storage.CHECKPOINTS
    half = folder / "9.orbax-checkpoint-tmp"
    (half / "params").mkdir(parents=True)
    (half / "params" / "manifest.ocdbt").write_bytes(b"half")
    assert storage.newest_step(tmp_path) == 2
    train(toy(4), tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == ["2", "4"]  # its rest is cleared away
    assert [r["step"] for r in reporting.read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_an_older_checkpoint_that_was_half_deleted_does_no_harm(tmp_path):
    state = create_state({"unet": {"w": jnp.zeros(3)}}, make_optimizer(0.1), 0.9)

    def save(*steps):
        with checkpoint.open_manager(tmp_path, keep=1) as manager:
            for step in steps:
                checkpoint.save(manager, state.replace(step=step), Clock(), float(10 - step) if step < 3 else None)
                manager.wait_until_finished()

    save(2, 3)
    for path in (tmp_path / storage.CHECKPOINTS / "2" / "metrics").iterdir():
        path.unlink()
    (tmp_path / storage.CHECKPOINTS / "2" / "metrics").rmdir()
    save(4)
    assert storage.newest_step(tmp_path) == 4 and not (tmp_path / storage.CHECKPOINTS / "2").exists()
    assert np.array_equal(storage.restore_params(tmp_path)["unet"]["w"], np.zeros(3))


# --- loader processes ---


def test_what_loaders_leave_in_shared_memory_is_removed_without_a_word():
    code = """
from multiprocessing import shared_memory
from arbiscale_jax.data import processes
processes.start_quiet_tracker()
print(shared_memory.SharedMemory(create=True, size=8).name)
"""
    command, variables = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    out = run(command, env=variables)
    assert (out.returncode, out.stderr) == (0, "")
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(out.stdout.strip())


def _parent(queue):
    """Starts a loader-like process, tells its id and waits to be killed."""
    child = multiprocessing.get_context("spawn").Process(target=_loader, args=(queue,))
    child.start()
    child.join(LIMIT)


def _loader(queue):
    processes.follow_parent(0, 1)
    os.kill(os.getpid(), signal.SIGINT)  # of the group: ignored
    os.kill(os.getpid(), signal.SIGTERM)  # the same, for a while
    queue.put(os.getpid())
    signal.pause()
    signal.pause()


def test_a_loader_survives_signals_to_the_group_and_not_its_parent():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    parent = context.Process(target=_parent, args=(queue,))
    parent.start()
    pid = queue.get(timeout=60)
    os.kill(pid, 0)  # it lives
    parent.kill()
    parent.join(LIMIT)
    parent.close()
    queue.close()
    kill_and_resume = module("kill_and_resume")
    kill_and_resume.wait_until(lambda: not kill_and_resume.alive(pid), "end of the loader")
