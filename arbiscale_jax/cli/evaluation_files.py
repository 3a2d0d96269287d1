"""Contains what both tasks of `arbiscale eval` share: the handling of models, images, settings and files."""

from importlib.metadata import version
from pathlib import Path

import jax

import arbiscale_jax
from arbiscale_jax import data
from arbiscale_jax.cli import sampling
from arbiscale_jax.errors import UserError
from arbiscale_jax.evaluation import report
from arbiscale_jax.images.saving import write_whole


def labels(names: list[str]) -> dict[str, str]:
    """Returns the names of the models in tables: the last part of each given name where that is unambiguous."""
    short = [Path(name).name or name for name in names]
    return {name: label if short.count(label) == 1 else name for name, label in zip(names, short, strict=True)}


def open_source(opts: dict) -> data.Source:
    """Opens the images of --data, a folder, a prepared set or a named source; with --lr a folder of pairs."""
    given, lr_root = opts["data"], opts.get("lr") or ""
    if lr_root and not Path(given).is_dir():
        raise UserError(f"--data={given} is no folder; give the folder of the images to which those of --lr belong.")
    if given in data.SOURCES and given != "folder" and not Path(given).exists():
        return data.make_source(given, split=opts["split"], cache_bytes=0)
    if not Path(given).is_dir():
        others = ", ".join(name for name in data.SOURCES if name != "folder")
        raise UserError(f"--data={given} is no folder; give a folder of images, or the name of a source: {others}.")
    if lr_root:
        return data.open_source("folder", given, opts["split"], 0, data.SourceOptions(lr_root=lr_root))
    kind = "prepared" if data.is_prepared(Path(given)) else "folder"
    return data.make_source(kind, given, opts["split"], cache_bytes=0)


def settings(opts: dict, models: dict) -> dict:
    """Returns everything that the figures depend on: flags, the models' own settings, versions and the machine."""
    packages = ("jax", "jaxlib", "numpy", "pillow", "scikit-image")
    versions = {"arbiscale_jax": arbiscale_jax.__version__} | {name: version(name) for name in packages}
    resolved = {
        label: {**dict(model.config.get("sampling", {})), **sampling.given(opts)} for label, model in models.items()
    }
    device = f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
    return {
        "flags": {**opts, "output": str(opts["output"])},
        "sampling": resolved,
        "versions": versions,
        "device": device,
    }


def write_results(output: Path, content: dict, rows: list[dict], summary: list[dict], markdown: str) -> None:
    """Writes results.json, results.csv (one row per measurement), summary.csv and summary.md."""
    for name, text in (
        ("results.json", report.to_json(content)),
        ("results.csv", report.to_csv(rows)),
        ("summary.csv", report.to_csv(summary)),
        ("summary.md", markdown),
    ):
        write_whole(output / name, text.encode(errors="backslashreplace"))  # names of files may hold any bytes


def sections(title: str, tables: dict[str, list[dict]], notes: list[str]) -> str:
    """Prints the tables and notes to the terminal, and returns them as Markdown."""
    text = f"# {title}\n"
    for name, rows in tables.items():
        if rows:
            report.print_table(name, rows)
            text += f"\n## {name}\n\n{report.to_markdown(rows)}"
    print("\n".join(notes))
    return text + "\n" + "".join(f"- {note}\n" for note in notes)
