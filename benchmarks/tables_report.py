"""Writes docs/TABLES.md for tables.py: what was measured beside what the paper prints."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import tables_paper
from common import markdown
from tables_plan import TITLES

BEGIN, END = "<!-- written by benchmarks/tables.py: begin -->", "<!-- end -->"
ROUNDED = 1e-4  # a standard error below it is left out


def number(mean: float, error: float, digits: int) -> str:
    """Formats a mean with its standard error."""
    tail = "" if math.isnan(error) or error < ROUNDED else f" ± {error:.{digits}f}"
    return f"{mean:.{digits}f}{tail}"


def upscaling(results: Sequence[tuple[Mapping, str]], metrics: Sequence[str]) -> str:
    """Makes a table with a row per method and a column per scale.

    Args: results, contents of results.json, each with words that are added to its methods' names; metrics, of which
      the cells hold the means and standard errors over pictures.
    """
    scales = list(dict.fromkeys(row["scale"] for content, _ in results for row in content["summary"]))
    rows = []
    for content, words in results:
        for method in dict.fromkeys(row["method"] for row in content["summary"]):
            cells = {row["scale"]: row for row in content["summary"] if row["method"] == method}
            shown = [
                " / ".join(number(cells[s][m], cells[s][f"{m}_se"], 2 if m == "psnr" else 3) for m in metrics)
                if s in cells
                else "-"
                for s in scales
            ]
            rows.append([TITLES.get(method, method) + words, *shown])
    return markdown(["method", *(f"x{scale:g}" for scale in scales)], rows)


def differences(content: Mapping, metrics: Sequence[str]) -> str:
    """Makes a table of the differences to the first method on the same pictures."""
    rows, scales = content["paired_differences"], list(dict.fromkeys(r["scale"] for r in content["paired_differences"]))
    shown = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = {row["scale"]: row for row in rows if row["method"] == method}
        texts = [
            " / ".join(f"{cells[s][m]:+.{2 if m == 'psnr' else 3}f} ± {cells[s][f'{m}_se']:.3f}" for m in metrics)
            for s in scales
        ]
        shown.append([TITLES.get(method, method), *texts])
    return markdown(["difference to before", *(f"x{scale:g}" for scale in scales)], shown)


def printed(rows: tables_paper.Rows, first: str = "printed in the paper") -> str:
    """Makes a table of the paper's own numbers."""
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    return markdown([first, *columns], [[name, *(cells.get(c, "-") for c in columns)] for name, cells in rows.items()])


def generated(content: Mapping, sizes: Sequence[int]) -> str:
    """Makes Table 1: distances, precision, recall and SelfSSIM at some sizes."""
    known, rows = [int(size) for size in next(iter(content["distances"].values()))], []
    for way, of_size in content["distances"].items():
        for size in sizes:
            found, line = of_size[str(size)], content["self_ssim"][way][known.index(size)]
            shares = [number(100 * found[m][0], 100 * found[m][1], 1) for m in ("precision", "recall")]
            similar = " ".join(f"{line[known.index(other)]:.2f}" for other in sizes)
            rows.append([way, str(size), number(*found["frechet"], 2), *shares, similar])
    names = ", ".join(map(str, sizes))
    head = ["method", "size", content["frechet"], "precision, %", "recall, %", f"SelfSSIM to {names}"]
    return markdown(head, rows)


def curve(content: Mapping) -> str:
    """Makes the table of Fig. 4: the distance and SelfSSIM over sizes."""
    sizes = list(next(iter(content["distances"].values())))
    rows = [
        [f"{content['frechet']}, {way}", *(number(*of_size[s]["frechet"], 2) for s in sizes)]
        for way, of_size in content["distances"].items()
    ]
    rows += [
        [f"SelfSSIM to {sizes[0]}, {way}", *(f"{value:.3f}" for value in m[0])]
        for way, m in content["self_ssim"].items()
    ]
    return markdown(["size", *sizes], rows)


def speeds(found: Mapping) -> str:
    """Makes Table 5."""
    scales, rows = list(next(iter(found.values()))), []
    for method, cells in found.items():
        shown = [
            f"{'about ' if 'estimated' in one else ''}{one['fps']:.3g} ({one['memory']:.1f} GiB)"
            if "fps" in one
            else f"needs {one['needs']:.0f} GiB"
            for one in (cells[scale] for scale in scales)
        ]
        rows.append([method, *shown])
    if len(found) == 2:
        ours, theirs = found.values()
        both = [f"{ours[s]['fps'] / theirs[s]['fps']:.0f}" if "fps" in theirs[s] else "-" for s in scales]
        rows.append(["ratio", *both])
    return markdown(["method", *scales], rows)


def decoders(found: Mapping[str, Mapping]) -> str:
    """Makes the upper half of Table 6."""
    names = {"mlp_first_stage": "MLP", "ours_first_stage": "AE + MLP"}
    columns = list(next(iter(found.values())))
    rows = [[names[run], *(number(*cells[c], 2) for c in columns)] for run, cells in found.items()]
    return markdown(["E's input and the render, pixels", *columns], rows)


def runs(rows: Sequence[Mapping[str, str]]) -> str:
    """Makes the table of what was trained."""
    if not rows:
        return ""
    named = [[TITLES.get(row["run"], row["run"]), *list(row.values())[1:]] for row in rows]
    return markdown(list(rows[0]), named)


def quoted() -> str:
    """Lists the methods that are quoted and not run."""
    return "\n".join(f"- {name}: {why}." for name, why in tables_paper.NOT_RUN.items())


def write(path: Path, sections: Mapping[str, str]) -> None:
    """Replaces what lies between BEGIN and END in a page; what was written by hand around them stays.

    Args: sections, title -> text; a section of an earlier run whose title is not among them stays too.
    """
    text = path.read_text() if path.exists() else f"# The paper's tables\n\n{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    body, _, tail = rest.partition(END)
    known = {}
    for part in body.split("\n## ")[1:]:
        title, _, content = part.partition("\n")
        known[title.strip()] = content.strip()
    known |= sections
    body = "\n\n".join(f"## {title}\n\n{known[title]}" for title in sorted(known, key=_order))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}")


def _order(title: str) -> tuple[int, str]:
    """Sorts sections: the runs, the tables, the figure, the methods that are quoted."""
    return ("Runs", "Table", "Fig", "Quoted").index(title.split()[0].rstrip(".:")), title
