"""Writes results as tables for a terminal, and as Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from .statistics import EXACT

_DIGITS = {"psnr": 2, "psnr_y": 2, "lr_psnr": 2, "scale": None, "images": None, "fps": 4, "color": 2, "weave": 2}
_DIGITS |= {"training": None, "nearer": None}
_DIGITS |= {"color_r": 2, "color_g": 2, "color_b": 2, "peak_host_mib": 0, "peak_device_mib": 0}


def columns_of(rows: Sequence[Mapping]) -> list[str]:
    """Returns the keys of all rows in order of appearance, without the errors NAME_se and NAME_std of other columns."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [key for key in keys if _value_of(key) not in keys]


def _value_of(key: str) -> str | None:
    return next((key.removesuffix(end) for end in ("_se", "_std") if key.endswith(end)), None)


def cells(rows: Sequence[Mapping]) -> tuple[list[str], list[list[str]]]:
    """Formats rows of numbers as a header and cells, with errors behind a plus-minus sign."""
    header = columns_of(rows)
    return header, [[_cell(row, key) for key in header] for row in rows]


def _cell(row: Mapping, key: str) -> str:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value or "-"
    digits = None if key.endswith(EXACT) else _DIGITS.get(key, 4)
    text = f"{value:g}" if digits is None else f"{value:.{digits}f}"
    error = next((row[key + end] for end in ("_se", "_std") if row.get(key + end) is not None), math.nan)
    return text if math.isnan(error) else f"{text} ± {error:.{digits or 0}f}"


def to_markdown(rows: Sequence[Mapping]) -> str:
    """Returns the rows as a Markdown table."""
    header, body = cells(rows)
    lines = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def to_csv(rows: Sequence[Mapping]) -> str:
    """Returns all values of the rows as CSV, with errors in columns of their own."""
    keys, out = list(dict.fromkeys(key for row in rows for key in row)), io.StringIO()
    writer = csv.DictWriter(out, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if _missing(value) else value for key, value in row.items()} for row in rows)
    return out.getvalue()


def _missing(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def to_json(content) -> str:
    """Returns JSON, in which nan becomes null (no value) and infinity becomes "inf"."""
    return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
    return value.item() if isinstance(value, np.generic) else value.to_dict() if hasattr(value, "to_dict") else value


def print_table(title: str, rows: Sequence[Mapping]) -> None:
    """Prints a table to stdout, even if it is wider than the terminal."""
    from rich.console import Console
    from rich.table import Table

    header, body = cells(rows)
    table = Table()
    for name in header:
        table.add_column(name, justify="left" if name in ("method", "size") else "right", no_wrap=True)
    for line in body:
        table.add_row(*line)
    console = Console()
    needed = console.measure(table, options=console.options.update(width=10_000)).maximum
    console.width = max(console.width, needed)
    print(f"\n{title}")
    console.print(table)
