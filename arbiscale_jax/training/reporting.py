"""What a run shows and writes: progress, metrics.jsonl, sample pictures, TensorBoard's files."""

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.whole_files import replacing, write_text

METRICS, SAMPLES, TENSORBOARD = "metrics.jsonl", "samples", "tensorboard"


def append_metrics(run_dir: Path, record: dict) -> None:
    """Adds one JSON object as a line to metrics.jsonl; non-finite numbers become null."""
    record = {k: (v if isinstance(v, int) or np.isfinite(v) else None) for k, v in record.items()}
    with (run_dir / METRICS).open("a") as f:
        f.write(json.dumps(record) + "\n")


def read_metrics(run_dir: Path) -> list[dict]:
    """Reads metrics.jsonl, [] without one; a line cut short by a crash is left out."""
    path = Path(run_dir) / METRICS
    records = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def rewind_metrics(run_dir: Path, step: int) -> None:
    """Drops the records after `step`, which a resumed run makes again."""
    records = [r for r in read_metrics(run_dir) if r["step"] <= step]
    write_text(run_dir / METRICS, "".join(json.dumps(r) + "\n" for r in records))


def check_tensorboard(wanted: bool) -> None:
    """Raises: UserError if TensorBoard's files are wanted and the package that writes them is missing."""
    if wanted and importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "train.tensorboard needs the package tensorboardX; install the extra 'tensorboard' "
            "(python -m pip install -c constraints.txt -e '.[tensorboard]') or leave it off."
        )


@contextmanager
def recorder(run_dir: Path, first_step: int, *, tensorboard: bool, quiet: bool = False) -> Iterator[Callable]:
    """Opens a run's records after `first_step`: metrics.jsonl, samples/ and, if wanted, tensorboard/.

    Yields: write(record, panels=None), a JSON object with its "step", and pictures [b k h w 3] in [-1, 1] of that step;
      it does nothing where `quiet` (all processes but the first).
    """
    if quiet:
        yield lambda record, panels=None: None
        return
    with _open_tensorboard(run_dir, first_step) if tensorboard else nullcontext() as events:

        def write(record, panels=None):
            append_metrics(run_dir, record)
            picture = None if panels is None else tile(panels)
            if picture is not None:
                _save_picture(run_dir / SAMPLES / f"step_{record['step']:07d}.png", picture)
            if events is not None:
                for name, value in record.items():
                    if name not in ("step", "time"):
                        events.add_scalar(name, value, record["step"])
                if picture is not None:
                    events.add_image("samples", picture, record["step"], dataformats="HWC")
                events.flush()

        yield write


def _open_tensorboard(run_dir: Path, first_step: int):
    from tensorboardX import SummaryWriter

    return closing(SummaryWriter(str(run_dir / TENSORBOARD), purge_step=first_step + 1 if first_step else None))


def tile(panels: np.ndarray) -> np.ndarray:
    """Lays panels [b k h w 3] in [-1, 1] out as one picture, uint8: a row an example; single panels fill a square."""
    b, k, h, w, _ = panels.shape
    if k == 1:
        k = int(np.ceil(np.sqrt(b)))
        rows = -(-b // k)
        white = np.ones((rows * k - b, h, w, 3), panels.dtype)
        panels = np.concatenate([panels[:, 0], white]).reshape(rows, k, h, w, 3)
        b = rows
    sheet = panels.transpose(0, 2, 1, 3, 4).reshape(b * h, k * w, 3)
    return np.clip(np.round((np.nan_to_num(sheet) + 1) * 127.5), 0, 255).astype(np.uint8)


def _save_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as part:
        Image.fromarray(picture).save(part, format="png")


class Report(NamedTuple):
    """Where a run's messages go."""

    say: Callable[[str], None]  # a line that stays
    show: Callable[[float, str], None]  # share done in [0, 1], state of things


@contextmanager
def progress(name: str, *, quiet: bool = False) -> Iterator[Report]:
    """Shows a bar on a terminal and plain lines elsewhere; nothing where `quiet` (all processes but the first)."""
    if quiet:
        yield Report(lambda line: None, lambda share, line: None)
        return
    if not sys.stdout.isatty():

        def say(line):
            try:
                print(line, flush=True)
            except OSError:  # its reader is gone, as `| tee` at a Ctrl-C: the run, and its checkpoint, go on
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

        yield Report(say, lambda share, line: say(f"{name} {share:4.0%}  {line}"))
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    state = TextColumn("{task.fields[line]}", markup=False)
    with Progress(TextColumn(name), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), state) as bar:
        task = bar.add_task(name, total=1.0, line="compiling")
        yield Report(
            lambda line: bar.console.print(line, markup=False, highlight=False),
            lambda share, line: bar.update(task, completed=share, line=line),
        )
