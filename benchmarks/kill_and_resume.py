"""Kills a training run at random moments, resumes it each time, and compares its end with an undisturbed run's.

Run: python benchmarks/kill_and_resume.py --kills 20 --output out/kill_and_resume
All arrays of the last checkpoint must agree bit for bit, on one machine; after each kill the loader
processes must end by themselves, and the shared memory that there was must be gone.
Linux: processes are found in /proc.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from arbiscale_jax.artifacts import storage
from arbiscale_jax.training.reporting import read_metrics

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300.0  # seconds for anything to happen


def launch(config: str, workdir: Path, steps: int, workers: int, log: Path) -> subprocess.Popen:
    """Starts or resumes the run."""
    fields = {"train.steps": steps, "train.log_every": 1, "data.workers": workers}
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, ROOT / "run_train.py", "--config", config, "--workdir", workdir, *options]
    with log.open("a") as f:
        return subprocess.Popen(command, cwd=ROOT, stdout=f, stderr=f)


def last_step(workdir: Path) -> int:
    return max((record["step"] for record in read_metrics(workdir)), default=0)


def descendants(pid: int) -> set[int]:
    """Finds the processes below `pid`, of any depth."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):  # it has just ended
            continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("*")}


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, what: str) -> None:
    """Raises: TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(0.005)


def kill(process: subprocess.Popen, workdir: Path, step: int, delay: float, before: set[str]) -> str:
    """Kills the run `delay` seconds after `step`, and waits until nothing of it is left."""
    wait_until(lambda: last_step(workdir) >= step or process.poll() is not None, f"step {step}")
    time.sleep(delay)
    if process.poll() is not None:
        raise RuntimeError(f"the run ended with code {process.returncode} before it was killed")
    left, memory = descendants(process.pid), shared_memory() - before
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(alive, left)), f"end of the processes {sorted(left)}")
    wait_until(lambda: not memory & shared_memory(), f"removal of the shared memory {sorted(memory)}")
    return (
        f"killed at step {last_step(workdir)}, newest checkpoint {storage.newest_step(workdir)}; "
        f"{len(left)} other processes and {len(memory)} pieces of shared memory gone"
    )


def checkpoint_arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Reads everything in a run's newest checkpoint: name -> array."""
    folder, arrays = workdir.resolve() / storage.CHECKPOINTS / str(storage.newest_step(workdir)), {}
    for item in ("params", "ema", "opt_state", "disc"):
        if (folder / item).is_dir():
            with closing(ocp.PyTreeCheckpointHandler()) as handler:
                tree = handler.restore(folder / item)
            for path, value in jax.tree_util.tree_leaves_with_path(tree):
                arrays[item + jax.tree_util.keystr(path)] = np.asarray(value)
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "benchmarks" / "toy_config.py"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="loader processes")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, required=True, help="folder of both runs, emptied first")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # ends the runs too
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    draw, before = random.Random(args.seed), shared_memory()
    calm, hunted, log = (args.output / name for name in ("undisturbed", "killed", "log.txt"))
    peer = launch(args.config, calm, args.steps, args.workers, log)
    processes = [peer]
    try:
        for step in sorted(draw.sample(range(int(0.9 * args.steps)), args.kills)):
            processes.append(launch(args.config, hunted, args.steps, args.workers, log))
            print(kill(processes[-1], hunted, step, draw.uniform(0, 0.3), before), flush=True)
        processes.append(launch(args.config, hunted, args.steps, args.workers, log))
        for process in (peer, processes[-1]):
            if process.wait():
                raise SystemExit(f"a run ended with code {process.returncode}; see {log}")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    expected, found = checkpoint_arrays(calm), checkpoint_arrays(hunted)
    other = [name for name in expected if not np.array_equal(expected[name], found.get(name))]
    if other or expected.keys() != found.keys() or not expected:
        raise SystemExit(f"{len(other)} of {len(expected)} arrays differ, the first is {[*other, '(missing)'][0]}")
    steps = [record["step"] for record in read_metrics(hunted)]
    if steps != list(range(1, args.steps + 1)):
        raise SystemExit(f"metrics.jsonl does not hold each step once: {steps}")
    print(f"{len(expected)} arrays equal bit for bit after {args.kills} kills")


if __name__ == "__main__":
    main()
