"""Means, standard errors and paired differences of per-image records."""

import math
from collections.abc import Sequence

import numpy as np

KEYS = ("image", "method", "scale")  # what a record is about; its other fields are metrics


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and its standard error, std / sqrt(n) with n - 1 in the variance; nan where n is 1."""
    values = np.asarray(values, np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        return float(values.mean()), math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def summarize(records: Sequence[dict]) -> list[dict]:
    """Averages records over images: a row for each method and scale, in order of appearance.

    Returns: dicts of method, scale, images (their number) and, for each metric m, m and m_se.
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
    """Averages each method's difference to `reference` on the same images: less noisy than comparing means.

    Returns: rows like `summarize`'s, of all other methods; a difference of infinite values is nan.
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
