"""Every field of the base configuration as Markdown: python -m arbiscale_jax.cli.config_table > docs/CONFIG.md"""

import ast
import inspect
import io
import tokenize

from arbiscale_jax import config
from arbiscale_jax.cli.config_flag import fields

_HEAD = """# Configuration

Every field of `arbiscale_jax/config.py`, of which this page is made (`python -m arbiscale_jax.cli.config_table >
docs/CONFIG.md`), with its default. A file in `configs/` overrides some; `--config.GROUP.FIELD=VALUE` on the command
line overrides both; a run's `config.json` holds the values that it was trained with.
"""


def meanings() -> dict[str, str]:
    """Reads the comment beside each field and each group off the source of config.py: dotted name -> text."""
    source = inspect.getsource(config)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    found = {}

    def walk(call: ast.Call, prefix: str) -> None:
        for field in call.keywords:
            is_group = isinstance(field.value, ast.Call)
            line = field.value.lineno if is_group else field.value.end_lineno
            found[prefix + field.arg] = comments.get(line, "")
            if is_group:
                walk(field.value, f"{prefix}{field.arg}.")

    walk(next(call.args[0] for call in calls if getattr(call.func, "attr", "") == "ConfigDict"), "")
    return found


def config_table() -> str:
    """Returns docs/CONFIG.md: one table a group, in the order of config.py."""
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
