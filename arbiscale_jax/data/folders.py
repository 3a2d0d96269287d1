"""Finds the images in folders, which may be nested or joined, and splits them by text files of names.

The name of an image is its path below the folder, with forward slashes. Where several folders are joined, the name of
the folder comes first, as in DIV2K_train_HR/0001.png.
"""

import hashlib
import logging
import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import readable_extensions

from .split_lines import leads_out, named, plain_name, read_lines, shortened, spellings

HELD_OUT = 0.05  # share of the images that are held out for validation where nothing else says which ones
METADATA = "dataset_info.json"  # the file that makes a folder a prepared set

logger = logging.getLogger(__name__)
_reported = set()  # messages that this process has logged already


class SplitFiles(NamedTuple):
    """Names the text files that list the images of each split, as `read_split` reads them; "" is no file."""

    train: str | Path = ""  # the images to train on; without it, all of the folder
    val: str | Path = ""  # the images to validate on, which are then not trained on


def report(message: str) -> None:
    """Logs a warning, but each message only once per process."""
    if message not in _reported:
        _reported.add(message)
        logger.warning("%s", message)


def parse_roots(root: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Returns the folders that `root` names.

    Args:
      root: one folder, or several as a sequence or separated by commas.

    Returns:
      {label: folder}; the label begins the names of the images in that folder, and it is "" for a single folder.

    Raises:
      UserError: if a folder is missing or is a file.
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
    labels = [folder.resolve().name for folder in folders]  # resolved, since "." has no name of its own
    return {
        label if labels.count(label) == 1 else f"{label}_{i}": folder
        for i, (label, folder) in enumerate(zip(labels, folders, strict=True), 1)
    }


def path_of(roots: Mapping[str, Path], name: str) -> Path:
    """Returns the path of the image called `name`."""
    if "" in roots:
        return roots[""] / name
    label, _, rest = name.partition("/")
    return roots[label] / rest


def title(roots: Mapping[str, Path]) -> str:
    """Returns a description of the folders for messages."""
    return f"folder{'s' if len(roots) > 1 else ''} {', '.join(map(str, roots.values()))}"


def find_images(roots: Mapping[str, Path]) -> list[str]:
    """Returns the sorted names of all images, at any depth, whose extension Pillow reads.

    Hidden files and folders are skipped.

    Raises:
      UserError: if a folder holds no image.
    """
    extensions, names = readable_extensions(), []
    for label, root in roots.items():
        found = [f"{label}/{name}" if label else name for name in _walk(root, extensions)]
        if not found:
            raise UserError(f"The image folder {root} {_why_empty(root)}.")
        names += found
    return sorted(names)


def _walk(root: Path, extensions: set[str]) -> Iterable[str]:
    """Yields the paths of all images below a folder, relative to it."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in extensions:
                yield (below / name).as_posix()


def _why_empty(root: Path) -> str:
    """Returns the end of the message for a folder without images."""
    if (root / METADATA).is_file():
        return "is a prepared set; read it with --config.data.source=prepared"
    if any(root.rglob("data.mdb")):
        return "holds an LMDB as LSUN distributes them; export it to image files with the tools of LSUN's project page"
    return "holds no image; give a folder with PNG, JPEG or similar files"


def read_split(path: str | Path, names: Sequence[str], roots: Mapping[str, Path] | None = None) -> list[str]:
    """Returns the sorted names that the text file of a split lists.

    Each line holds one name: the path below the folder, or a path that ends with it, or the name of the file alone if
    only one image has it. The extension may be missing, and backslashes, quotes and blanks around the name are
    understood. Blank lines and comments, which begin with #, are skipped. Listed images that do not exist are reported.

    Args:
      path: the text file.
      names: names of all images.
      roots: the folders that hold them, by which absolute paths are recognised.

    Raises:
      UserError: if the file cannot be read, no listed image exists, or a line leads out of the folder or belongs to
        several images.
    """
    path = Path(path).expanduser()
    lines = read_lines(path)
    deepest = max((name.count("/") for name in names), default=0) + 1
    by_path, by_file = _aliases(names, str), _aliases(names, _file)

    def find(spelling):
        name = _below(spelling, roots or {}, path)
        name = plain_name(posixpath.normpath(name) + "/" * name.endswith("/"))  # a folder is no image
        parts = name.split("/")[-deepest:]
        ends = ["/".join(parts[i:]) for i in range(len(parts))]  # a list may also name the folders above data.root
        keys = [(by_path, key) for end in ends for key in (end, _stem(end))]
        keys += [(by_file, name), (by_file, _stem(name))]  # only a line without a folder is a key of by_file
        return next((known[key] for known, key in keys if key in known), ())

    chosen, missing = set(), []
    for line in lines:
        found = next((images for images in map(find, spellings(line)) if images), ())
        if len(found) > 1:
            raise UserError(
                f"{shortened(line)} in the split file {path} may be {found[0]} or {found[1]}; write the whole path."
            )
        chosen.update(found)
        if not found:
            missing.append(line)
    if not chosen:
        example = f", such as {shortened(missing[0])}," if missing else ""
        raise UserError(
            f"None of the {len(lines)} names in the split file {path}{example} is an image of this data set, whose "
            f"first is {names[0]}; give names relative to data.root."
        )
    if missing:
        report(f"{len(missing)} of the {len(lines)} images in {path} are not there: {named(missing)}.")
    return sorted(chosen)


def _below(line: str, roots: Mapping[str, Path], path: Path) -> str:
    """Returns a line as a name below the folders where it is the absolute path of a file in them.

    Raises:
      UserError: if it leads out of the folders.
    """
    place, outside = Path(os.path.normpath(os.path.expanduser(line))), leads_out(line)
    if place.is_absolute() and roots:
        for label, root in roots.items():
            for inside in (root.absolute(), root.resolve()):
                if place.is_relative_to(inside):
                    below = place.relative_to(inside).as_posix()
                    return f"{label}/{below}" if label else below
        outside = outside or os.path.isfile(place)  # a path of another machine may end with a name of this data set
    if outside:
        raise UserError(
            f"{shortened(line)} in the split file {path} leads out of the {title(roots) if roots else 'folder'}; list "
            "images that are in it."
        )
    return line


def _file(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _aliases(names: Sequence[str], part: Callable[[str], str]) -> Mapping[str, list[str]]:
    """Maps a part of each name, with and without extension, to all names that contain this part."""
    aliases = defaultdict(list)
    for name in names:
        for key in dict.fromkeys((part(name), _stem(part(name)))):
            aliases[plain_name(key)].append(name)
    return aliases


def hold_out(names: list[str], is_readable: Callable[[str], bool], split: str, title: str) -> list[str]:
    """Returns the names of a split: "val" is a twentieth, chosen by a hash of the names, "train" the rest, "all" both.

    Each split has at least one readable image, and only as many images are decoded as it takes to find one. If there is
    a single readable image, both splits hold it.

    Args:
      names: names of all images.
      is_readable: tells whether the image of a name can be decoded.
      split: "train", "val" or "all".
      title: what the images are called in messages.

    Raises:
      UserError: if no image is readable.
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
