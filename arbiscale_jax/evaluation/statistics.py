"""Computes means, standard errors and paired differences of records about single images."""

import math
from collections.abc import Sequence

import numpy as np

KEYS = ("image", "method", "scale")  # the fields that say what a record is about; the others are metrics


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and its standard error, std / sqrt(n) with n - 1 in the variance, which is nan if n is 1."""
    x = np.asarray(values, np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        return float(x.mean()), math.nan
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))


def summarize(records: Sequence[dict]) -> list[dict]:
    """Averages records over images.

    Returns:
      One dict per method and scale, in order of appearance, with method, scale, images (their number) and, for each
        metric m, its mean m and its standard error m_se.
    """
    groups = {}
    for record in records:
        groups.setdefault((record["method"], record["scale"]), []).append(record)
    rows = []
    for (method, scale), group in groups.items():
        row = {"method": method, "scale": scale, "images": len(group)}
        for metric in _metrics(group):
            row[metric], row[f"{metric}_se"] = mean_and_error([record[metric] for record in group])
        rows.append(row)
    return rows


def paired_differences(records: Sequence[dict], reference: str) -> list[dict]:
    """Averages the difference of each method to `reference` on the same images, which varies less than the means.

    Returns:
      Rows like those of `summarize` for all other methods; a difference of infinite values is nan.
    """
    known = {(r["image"], r["scale"]): r for r in records if r["method"] == reference}
    differences = []
    for record in records:
        if record["method"] == reference:
            continue
        other = known[record["image"], record["scale"]]
        shared = [metric for metric in _metrics([record]) if metric in other]
        with np.errstate(invalid="ignore"):
            values = {metric: float(np.subtract(record[metric], other[metric])) for metric in shared}
        differences.append({key: record[key] for key in KEYS} | values)
    return summarize(differences)


def _metrics(group: Sequence[dict]) -> list[str]:
    return [name for name in group[0] if name not in KEYS]
