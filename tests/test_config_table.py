"""docs/CONFIG.md is current, and every field of the configuration has a meaning and is read."""

import ast
from pathlib import Path

from arbiscale_jax.cli.config_flag import fields
from arbiscale_jax.cli.config_table import config_table, meanings
from arbiscale_jax.experiments import get_base_config

ROOT = Path(__file__).resolve().parent.parent
DEFINING = "experiments"  # this package sets fields and reads none


def names_read() -> set[str]:
    """Every name by which the package could read a field: attributes, keys, parameters, dataclass fields."""
    found = set()
    for path in (ROOT / "arbiscale_jax").rglob("*.py"):
        if DEFINING in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(attr=name) | ast.Constant(value=str(name)) | ast.arg(arg=name):
                    found.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(name)
    return found


def test_every_field_and_group_has_a_meaning():
    texts, leaves = meanings(), set(fields(get_base_config()))
    assert leaves <= set(texts) and all(any(leaf.startswith(f"{g}.") for leaf in leaves) for g in set(texts) - leaves)
    assert [name for name, text in texts.items() if not text] == []
    assert texts["model.first_stage.z_channels"] == "number of channels of the latent"
    assert texts["train"] == "the training loop"


def test_the_document_is_current():
    page = config_table()
    assert (ROOT / "docs" / "CONFIG.md").read_text() == page, (
        "python -m arbiscale_jax.cli.config_table > docs/CONFIG.md makes it current"
    )
    assert "| `ch_mult` | `(1, 2, 4)` | " in page and "## data.real: " in page
    assert page.count("\n| `") == len(fields(get_base_config()))


def test_every_field_is_read():
    read = names_read()
    unread = [name for name in fields(get_base_config()) if name.rsplit(".", 1)[-1] not in read]
    assert unread == []
    assert "sqrt_of_nothing" not in read
