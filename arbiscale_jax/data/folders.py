"""Folders of images as the field lays them out: nested or flat, several joined, split by text files of names.

The name of an image is its path below the folder, with forward slashes; where several folders are joined, the folder's
own name comes first (DIV2K_train_HR/0001.png).
"""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import readable_extensions

HELD_OUT = 0.05  # of the images, at least one, are the validation split where nothing else says which
METADATA = "dataset_info.json"  # in a prepared set

logger = logging.getLogger(__name__)
_reported = set()  # what this process has logged, so that it is logged once


def report(message: str) -> None:
    """Logs a warning once a process."""
    if message not in _reported:
        _reported.add(message)
        logger.warning("%s", message)


def parse_roots(root: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Returns the folders that `root` names, by the prefix of their images' names: "" for a single one.

    Args: root, a folder; several of them, separated by commas or as a sequence.
    Raises: UserError if one is missing or no folder.
    """
    if isinstance(root, str) and "," in root and not Path(root).expanduser().exists():
        root = [part.strip() for part in root.split(",") if part.strip()]
    roots = [root] if isinstance(root, str | Path) else list(root)
    if not any(str(one) for one in roots):
        raise UserError("The data source folder needs a path; give it as config.data.root (or val_root).")
    folders = [Path(one).expanduser() for one in roots]
    for folder in folders:
        if not folder.is_dir():
            problem = "is a file" if folder.exists() else "does not exist"
            raise UserError(f"The image folder {folder} {problem}; give a folder.")
    if len(folders) == 1:
        return {"": folders[0]}
    labels = [folder.resolve().name for folder in folders]  # "." has none of its own
    return {
        label if labels.count(label) == 1 else f"{label}_{i}": folder
        for i, (label, folder) in enumerate(zip(labels, folders, strict=True), 1)
    }


def path_of(roots: Mapping[str, Path], name: str) -> Path:
    """Returns where the image called `name` lies."""
    if "" in roots:
        return roots[""] / name
    label, _, rest = name.partition("/")
    return roots[label] / rest


def title(roots: Mapping[str, Path]) -> str:
    """Returns how messages call the folders."""
    return f"folder{'s' if len(roots) > 1 else ''} {', '.join(map(str, roots.values()))}"


def find_images(roots: Mapping[str, Path]) -> list[str]:
    """Returns the sorted names of all images, at any depth, with an extension that Pillow reads.

    Hidden files and folders are passed over.
    Raises: UserError naming the folder that holds none.
    """
    extensions, names = readable_extensions(), []
    for label, root in roots.items():
        found = [f"{label}/{name}" if label else name for name in _walk(root, extensions)]
        if not found:
            raise UserError(f"The image folder {root} {_why_empty(root)}.")
        names += found
    return sorted(names)


def _walk(root: Path, extensions: set[str]) -> Iterable[str]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in extensions:
                yield (below / name).as_posix()


def _why_empty(root: Path) -> str:
    if (root / METADATA).is_file():
        return "is a prepared set; read it with --config.data.source=prepared"
    if any(root.rglob("data.mdb")):
        return "holds an LMDB as LSUN distributes them; export it to image files with the tools of LSUN's project page"
    return "holds no image; give a folder with PNG, JPEG or similar files"


def read_split(path: str | Path, names: Sequence[str]) -> list[str]:
    """Returns those of `names` that a split's text file lists, sorted.

    A line holds one name: the path below the folder, or one that ends with it, or the file's name alone where only one
    image has it, each with or without extension. Blank lines and lines that begin with # are passed over; listed images
    that are not there are reported.
    Raises: UserError if the file cannot be read, lists nothing that is there, or a name that several images have.
    """
    path = Path(path).expanduser()
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is no text"
        raise UserError(f"The split file {path} cannot be read ({why}); give a text file with a name a line.") from e
    listed = [line.removeprefix("./") for line in lines if line and not line.startswith("#")]
    by_path, by_file = _aliases(names, str), _aliases(names, _file)
    chosen, missing = set(), []
    for line in listed:
        parts = line.split("/")
        ends = ["/".join(parts[i:]) for i in range(len(parts))]  # a list may name folders above data.root
        keys = [(by_path, key) for end in ends for key in (end, _stem(end))]
        keys += [(by_file, line), (by_file, _stem(line))]  # only a line without folders is a key there
        found = next((known[key] for known, key in keys if key in known), ())
        if len(found) > 1:
            raise UserError(f"{line} in the split file {path} may be {found[0]} or {found[1]}; write the whole path.")
        chosen.update(found)
        if not found:
            missing.append(line)
    if not chosen:
        example = f", as {listed[0]}," if listed else ""
        raise UserError(
            f"None of the {len(listed)} names in the split file {path}{example} is an image of this data set, whose "
            f"first is {names[0]}; give names relative to data.root."
        )
    if missing:
        report(f"{len(missing)} of the {len(listed)} images in {path} are not there, the first is {missing[0]}.")
    return sorted(chosen)


def _file(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _aliases(names: Sequence[str], part: Callable[[str], str]) -> Mapping[str, list[str]]:
    """Maps a part of each name, with and without extension, to the names that have it."""
    aliases = defaultdict(list)
    for name in names:
        for key in dict.fromkeys((part(name), _stem(part(name)))):
            aliases[key].append(name)
    return aliases


def hold_out(names: list[str], is_readable: Callable[[str], bool], split: str, title: str) -> list[str]:
    """Returns the names of a split: `val` is a twentieth by a hash of the names, `train` the rest, `all` both.

    A split has at least one readable image, and no more are decoded than that takes to find; of one image both splits
    are that image.
    Raises: UserError if none is readable.
    """

    def first_readable(candidates):
        return next((i for i, name in enumerate(candidates) if is_readable(name)), None)

    ranked = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    first = first_readable(ranked)
    if first is None:
        raise UserError(f"The image {title} holds {len(names)} images, none of them readable; give intact ones.")
    if split == "all":
        return names
    num_val = max(first + 1, round(HELD_OUT * len(names)))
    if first_readable(ranked[num_val:]) is None:
        report(f"The {title} has one readable image: validation uses the image that is trained on.")
        return names
    return sorted(ranked[:num_val] if split == "val" else ranked[num_val:])
