"""Prints docs/CONFIG.md, a table of every field of the configuration: python -m arbiscale_jax.cli.config_table."""

import ast
import inspect
import io
import tokenize

from arbiscale_jax.cli.config_flag import fields
from arbiscale_jax.experiments import base as config

_HEAD = """# Configuration

This page lists every field of `arbiscale_jax/experiments/base.py` with its default and its meaning; it is made by
`python -m arbiscale_jax.cli.config_table > docs/CONFIG.md`. A file in `configs/` overrides some of the defaults, and
`--config.GROUP.FIELD=VALUE` on the command line overrides both. A run's `config.json` holds the values that it was
trained with.
"""


def meanings() -> dict[str, str]:
    """Reads the comment beside each field and each group from the source of base.py, as {dotted name: text}."""
    source = inspect.getsource(config)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    found = {}

    def walk(call: ast.Call, prefix: str) -> None:
        for field in call.keywords:
            group = field.value if isinstance(field.value, ast.Call) else None
            line = group.lineno if group else field.value.end_lineno or 0
            found[f"{prefix}{field.arg}"] = comments.get(line, "")
            if group:
                walk(group, f"{prefix}{field.arg}.")

    fields = next(call.args[0] for call in calls if getattr(call.func, "attr", "") == "ConfigDict")
    assert isinstance(fields, ast.Call), "get_base_config holds ConfigDict(dict(...))"
    walk(fields, "")
    return found


def config_table() -> str:
    """Returns the text of docs/CONFIG.md, with one table per group, in the order of base.py."""
    values, texts = fields(config.get_base_config()), meanings()
    groups = {}
    for name in (name for name in texts if name in values):
        group, _, leaf = name.rpartition(".")
        groups.setdefault(group, []).append(f"| `{leaf}` | `{values[name]!r}` | {texts[name]} |")
    return "\n".join([_HEAD, *(_section(group, texts.get(group, ""), rows) for group, rows in groups.items())])


def _section(group: str, text: str, rows: list[str]) -> str:
    title = f"## {group}: {text}" if group else "## The run"
    return "\n".join([title, "", "| field | default | meaning |", "| --- | --- | --- |", *rows, ""])


if __name__ == "__main__":
    print(config_table(), end="")
