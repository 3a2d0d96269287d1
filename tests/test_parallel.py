"""Many devices and processes compute what one does, and checkpoints move between them."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import waiting
from absl import flags
from jax.sharding import PartitionSpec
from toys import tiny

from arbiscale_jax import data
from arbiscale_jax.artifacts import storage
from arbiscale_jax.cli import multihost
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime import mesh
from arbiscale_jax.training import reporting, survival, train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of subprocesses: the package, and a shared cache of compiled programs."""
    cache = str(tmp_path_factory.mktemp("compiled_by_programs"))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "ARBISCALE_CACHE": cache}


# --- where things lie ---


def test_the_largest_axis_that_divides_is_divided():
    two = mesh.make_mesh(fsdp=2)
    shapes = {"conv": (3, 3, 8, 64), "square": (8, 8), "odd": (3, 5), "small": (4,), "scalar": ()}
    shapes = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    specs = {name: s.spec for name, s in mesh.state_sharding(shapes, two, 15).items()}
    whole = PartitionSpec()
    assert specs == {
        "conv": PartitionSpec(None, None, None, "fsdp"),
        "square": PartitionSpec("fsdp"),
        "odd": whole,
        "small": whole,
        "scalar": whole,
    }
    one = mesh.make_mesh(fsdp=1)
    assert all(s.is_fully_replicated for s in mesh.state_sharding(shapes, one, 1).values())
    with pytest.raises(UserError, match="train.fsdp must divide 2, the number of devices, got 3"):
        mesh.make_mesh(fsdp=3)


def test_rows_of_processes_make_up_the_batch():
    config = tiny("first_stage").data
    whole = data.train_batches(config, 7, 4, start_step=2)
    parts = [data.train_batches(config, 7, 4, start_step=2, rows=rows) for rows in ([0, 1], [3])]
    for _ in range(2):
        batch, first, last = next(whole), *map(next, parts)
        for name, x in batch.items():
            np.testing.assert_array_equal(first[name], x[:2])
            np.testing.assert_array_equal(last[name], x[3:])
    for it in (whole, *parts):
        it.close()
    m = mesh.make_mesh()
    assert mesh.local_rows(6, m) == list(range(6))
    x = np.arange(12.0).reshape(6, 2)
    placed = mesh.shard_rows({"x": x}, mesh.local_rows(6, m), 6, m)["x"]
    assert np.array_equal(placed, x) and not placed.sharding.is_fully_replicated


# --- one device, eight, and divided state ---


def test_eight_devices_compute_what_one_does_with_and_without_fsdp(environment):
    command = [sys.executable, ROOT / "tests" / "parallel_stages.py"]
    out = waiting.run(command, env=environment)
    assert out.returncode == 0, out.stderr
    report = json.loads(out.stdout)
    assert set(report) == {"first_stage", "align"}
    for name, results in report.items():
        assert results["moved"] > 1e-3, name  # the steps did something
        for layout in results.keys() - {"moved"}:
            assert results[layout]["error"] < 1e-5, (name, layout, results)
            part = results[layout]["part"]  # of the state that a device holds
            assert part < 0.5 if layout == "fsdp" else part == 1, (name, layout, results)


def test_checkpoints_move_between_whole_and_divided_state(toy, tmp_path):
    train(toy(6), tmp_path / "whole")
    for steps, fsdp in ((2, 2), (4, 1), (6, 2)):
        config = toy(steps).copy_and_resolve_references()
        config.train.update(fsdp=fsdp, fsdp_least=2)
        train(config.lock(), tmp_path / "moved")
    whole, moved = (storage.restore_params(tmp_path / name) for name in ("whole", "moved"))
    np.testing.assert_allclose(whole["unet"]["w"], moved["unet"]["w"], rtol=1e-5)


# --- processes ---


def free_port() -> int:
    with closing(socket.socket()) as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start_processes(workdir, environment, num=2, **fields):
    """Starts `num` processes of one run on this machine, a device each."""
    address = f"localhost:{free_port()}"
    options = [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]
    command = [sys.executable, ROOT / "tests" / "train_process.py", "--config", ROOT / "benchmarks" / "toy_config.py"]
    command += ["--workdir", workdir, "--multihost", "--coordinator-address", address, "--num-processes", str(num)]
    pipes = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return [subprocess.Popen([*command, "--process-id", str(i), *options], **pipes) for i in range(num)]


def ends(processes, code: int) -> list[str]:
    """Waits for all, checks their exit codes, and returns what they printed."""
    outputs = waiting.ends(processes)
    assert [p.returncode for p in processes] == [code] * len(processes), "\n".join(outputs)
    return outputs


def test_two_processes_train_stop_together_and_resume(toy, environment, tmp_path):
    fields = dict(train__schedule="constant", train__warmup_steps=0, train__batch_size=4, train__checkpoint_every=0)
    processes = start_processes(tmp_path / "two", environment, **fields, train__steps=100_000)

    def two_steps_or_an_end():
        return len(reporting.read_metrics(tmp_path / "two")) >= 2 or any(p.poll() is not None for p in processes)

    waiting.wait_until(two_steps_or_an_end, "two steps")
    processes[1].send_signal(signal.SIGTERM)  # the other learns of it
    ends(processes, 130)
    stopped = storage.newest_step(tmp_path / "two")
    assert stopped == reporting.read_metrics(tmp_path / "two")[-1]["step"] >= 2
    more = dict(train__steps=stopped + 2, train__fsdp=2, train__fsdp_least=2)
    first, second = ends(start_processes(tmp_path / "two", environment, **fields, **more), 0)
    assert f"Resuming {tmp_path / 'two'} at step {stopped}." in first and "Resuming" not in second
    assert [r["step"] for r in reporting.read_metrics(tmp_path / "two")] == list(range(1, stopped + 3))
    assert not (tmp_path / "two" / survival.LOCK).exists()
    one = dict(learning_rate=1e-3, val_every=0, checkpoint_every=0)
    train(toy(stopped + 2, **one), tmp_path / "one")  # one process
    a, b = (storage.restore_params(tmp_path / name)["unet"]["w"] for name in ("one", "two"))
    np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--process-id=1"], "--process-id need --multihost"),
        (["--multihost", "--num-processes=2"], "--num-processes need --coordinator-address and --process-id too"),
        (["--multihost", "--num-processes=2", "--coordinator-address=a:1", "--process-id=2"], "got 2 of 2"),
    ],
)
def test_flags_of_processes_go_together(argv, message):
    flag_values = flags.FlagValues()
    multihost.define(flag_values)
    flag_values(["train", *argv])
    with pytest.raises(UserError, match=message):
        multihost.check(flag_values)
