"""Computes means, standard errors and paired differences of records about single images."""

import math
from collections.abc import Sequence

import numpy as np

KEYS = ("image", "method", "scale")  # the fields that say what a record is about; the others are metrics
EXACT = "_exact"  # how the number of infinite values is named, behind the metric's name


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean of the finite values and its standard error.

    The PSNR of a picture that equals the truth is infinite, which says nothing about the others. The mean and its error
    are therefore those of the other values; the mean is infinite if there are none.

    Args:
      values: numbers, of which some may be infinite; nan counts as a value and makes the mean nan.

    Returns:
      The mean, and std / sqrt(n) with n - 1 in the variance, which is nan if n, the number of values that count, is
      below 2.
    """
    x = np.asarray(values, np.float64)
    x = x[~np.isposinf(x)]
    if not len(x):
        return math.inf, math.nan
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan


def summarize(records: Sequence[dict]) -> list[dict]:
    """Averages records over images.

    Returns:
      One dict per method and scale, in order of appearance, with method, scale, images (their number) and, for each
        metric m, its mean m and its standard error m_se. If infinite values are left out of a mean, m_exact is their
        number.
    """
    groups = {}
    for record in records:
        groups.setdefault((record["method"], record["scale"]), []).append(record)
    rows = []
    for (method, scale), group in groups.items():
        row = {"method": method, "scale": scale, "images": len(group)}
        for metric in _metrics(group):
            values = [record[metric] for record in group]
            row[metric], row[f"{metric}_se"] = mean_and_error(values)
            if exact := int(np.isposinf(values).sum()):
                row[metric + EXACT] = exact
        rows.append(row)
    return rows


def paired_differences(records: Sequence[dict], reference: str) -> list[dict]:
    """Averages the difference of each method to `reference` on the same images, which varies less than the means.

    Returns:
      Rows like those of `summarize` for all other methods. Images for which one of the two values is infinite are left
      out of a mean and counted as m_exact.
    """
    known = {(r["image"], r["scale"]): r for r in records if r["method"] == reference}
    differences = []
    for record in records:
        if record["method"] == reference:
            continue
        other = known[record["image"], record["scale"]]
        shared = [metric for metric in _metrics([record]) if metric in other]
        pairs = {metric: (record[metric], other[metric]) for metric in shared}
        values = {metric: math.inf if math.inf in pair else pair[0] - pair[1] for metric, pair in pairs.items()}
        differences.append({key: record[key] for key in KEYS} | values)
    return summarize(differences)


def notes_on_exact(summary: Sequence[dict]) -> list[str]:
    """Returns a sentence for each row of `summarize` and each metric in which infinite values were left out."""
    return [
        f"{row['method']} at scale {row['scale']:g}: {row[key]} of {row['images']} images have an infinite "
        f"{key.removesuffix(EXACT)}, since they are exact, and its mean and error are those of the others."
        for row in summary
        for key in row
        if key.endswith(EXACT)
    ]


def _metrics(group: Sequence[dict]) -> list[str]:
    return [name for name in group[0] if name not in KEYS]
