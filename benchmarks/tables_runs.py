"""How tables.py trains and measures: by the commands that a user would type, each once; what is done is found again."""

import json
import resource
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tables_plan
from tables_plan import Measurement, Training

from arbiscale_jax.artifacts import storage
from arbiscale_jax.cli import config_flag

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, options: Sequence[str], log: Path) -> None:
    """Runs a script of the repository, its output in a log; raises RuntimeError with the log's name if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"python {shlex.join([script, *options])}", flush=True)
    with log.open("a") as file:
        found = subprocess.run([sys.executable, ROOT / script, *options], stdout=file, stderr=subprocess.STDOUT)
    if found.returncode:
        raise RuntimeError(f"{script} ended with code {found.returncode}; {log} says why.")


def train(one: Training, folder: Path, share: float) -> None:
    """Trains a run to its end, and adds the CPU minutes that this took to NAME.json.

    Args: folder, of the runs; share, of the minutes of configurations that have some.
    """
    workdir, record = folder / one.name, folder / f"{one.name}.json"
    known = json.loads(record.read_text()) if record.exists() else {"cpu_minutes": 0.0, "done": False}
    if known["done"]:
        return
    budget = config_flag.load(str(ROOT / "configs" / f"{one.as_long_as or one.config}.py"))
    minutes = share * budget.train.minutes
    options = [f"--config=configs/{one.config}.py", f"--workdir={workdir}"]
    options += [option.format(runs=folder) for option in one.options]
    if minutes:
        options.append(f"--config.train.minutes={minutes:g}")
    before = cpu_seconds()
    try:
        run("run_train.py", options, folder / f"{one.name}.log")
        known["done"] = True
    finally:
        known["cpu_minutes"] += (cpu_seconds() - before) / 60
        known |= {"minutes": minutes, "steps": storage.newest_step(workdir), "config": one.config}
        record.write_text(json.dumps(known))


def cpu_seconds() -> float:
    """Returns the processor time of all finished child processes, all cores together."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def is_done(name: str, folder: Path) -> bool:
    """Whether a run has been trained to its end."""
    record = folder / f"{name}.json"
    return record.exists() and json.loads(record.read_text())["done"]


def measure(one: Measurement, folder: Path, output: Path) -> dict:
    """Measures once for these models, and returns the content of results.json."""
    found = output / one.name / "results.json"
    models = ",".join(name if name == "bicubic" else str(folder / name) for name in one.models)
    if not found.exists() or json.loads(found.read_text())["flags"]["model"] != models.split(","):
        run(
            "run_eval.py",
            ["--task=upscale", f"--model={models}", f"--output={found.parent}", *one.options],
            output / f"{one.name}.log",
        )
    return json.loads(found.read_text())


def describe(plan: tables_plan.Plan, folder: Path) -> list[dict]:
    """Returns a row for each run that has ended: what was trained, and how long."""
    rows = []
    for one in plan.trainings:
        if is_done(one.name, folder):
            known = json.loads((folder / f"{one.name}.json").read_text())
            options = [option for option in one.options if "data.root" not in option]
            command = " ".join([f"{one.config}", *(option.format(runs="runs") for option in options)])
            minutes = f"{known['minutes']:g}" if known["minutes"] else "-"
            cells = [one.name, f"`{command}`", minutes, f"{known['cpu_minutes']:.1f}", f"{known['steps']:,}"]
            head = ["run", "configuration", "minutes", "CPU minutes", "updates"]
            rows.append(dict(zip(head, cells, strict=True)))
    return rows
