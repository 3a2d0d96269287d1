"""Pages of the site that lie elsewhere in the repository: README, model cards, the notebook, what contributors read."""

import json
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "arbiscale_jax/pretrained/photos/README.md": "photos.md",
    "arbiscale_jax/pretrained/emoji/README.md": "emoji.md",
    "benchmarks/gpu/README.md": "gpu.md",
    "examples/upscale.ipynb": "notebook.md",
}


def on_files(files, config):
    """Adds the pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_read(ROOT / source)))
    return files


def _read(path: Path) -> str:
    """Returns a file as a page, its links turned to the site's."""
    text = _notebook(path) if path.suffix == ".ipynb" else path.read_text()
    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", lambda match: _link(path, *match.groups()), text)


def _link(path: Path, text: str, target: str) -> str:
    """Points a link of the repository to the page of its target; a file that has no page is only named."""
    if re.match("[a-z]+:|#", target):
        return f"[{text}]({target})"
    source = (path.parent / target).resolve().relative_to(ROOT).as_posix()
    page = PAGES.get(source, source.removeprefix("docs/") if source.startswith("docs/") else "")
    return f"[{text}]({page})" if page else text


def _notebook(path: Path) -> str:
    """Returns a notebook as Markdown: its text, its code and the pictures and text that the code shows."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [_shown(output["data"]) for output in cell.get("outputs", ())]
    return "\n\n".join([*parts, "(This page is the notebook [examples/upscale.ipynb](upscale.ipynb).)"]) + "\n"


def _shown(data: dict) -> str:
    if "image/jpeg" in data:
        return f'<img alt="what the cell shows" src="data:image/jpeg;base64,{"".join(data["image/jpeg"]).strip()}">'
    return f"```text\n{''.join(data['text/plain'])}\n```"
