"""Writes a run's records: metrics.jsonl, sample pictures and TensorBoard's files."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import replacing, write_text

METRICS, SAMPLES, TENSORBOARD = "metrics.jsonl", "samples", "tensorboard"


def append_metrics(run_dir: Path, record: dict) -> None:
    """Adds one JSON object as a line to metrics.jsonl; numbers that are not finite become null."""
    record = {k: (v if isinstance(v, int) or np.isfinite(v) else None) for k, v in record.items()}
    with (run_dir / METRICS).open("a") as f:
        f.write(json.dumps(record) + "\n")


def read_metrics(run_dir: Path) -> list[dict]:
    """Reads metrics.jsonl, without a line that a crash cut short; the list is empty if there is no such file."""
    path = Path(run_dir) / METRICS
    records = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def rewind_metrics(run_dir: Path, step: int) -> None:
    """Removes the records after step `step`, which a resumed run makes again."""
    records = [r for r in read_metrics(run_dir) if r["step"] <= step]
    write_text(run_dir / METRICS, "".join(json.dumps(r) + "\n" for r in records))


def check_tensorboard(wanted: bool) -> None:
    """Raises UserError if TensorBoard's files are wanted and the package that writes them is missing."""
    if wanted and importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "train.tensorboard needs the package tensorboardX; install the extra 'tensorboard' "
            "(python -m pip install -c constraints.txt -e '.[tensorboard]') or leave it off."
        )


@contextmanager
def recorder(run_dir: Path, first_step: int, *, tensorboard: bool, quiet: bool = False) -> Iterator[Callable]:
    """Opens the records of a run: metrics.jsonl, samples/ and, if wanted, tensorboard/.

    Args:
      run_dir: the directory of the run.
      first_step: the number of steps that are already recorded.
      tensorboard: whether to write TensorBoard's files.
      quiet: whether to write nothing, as in all processes but the first.

    Yields:
      A function write(record, panels=None), where `record` is a JSON object with its "step" and `panels` are pictures
        [b k h w 3] in [-1, 1].
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
    """Arranges panels [b k h w 3] in [-1, 1] as one uint8 picture with one row per example.

    If there is only one panel per example, the panels fill a square instead.
    """
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
