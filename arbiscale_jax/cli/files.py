"""Checks folders of results before anything is computed."""

import os
import shutil
from pathlib import Path

from arbiscale_jax.errors import UserError


def check_output_folder(folder: str | Path, num_bytes: int) -> None:
    """Checks that `folder` can hold about num_bytes more, without creating anything.

    Raises:
      UserError: if it is a file, lies below one or cannot be written, or its disk is too full.
    """
    folder = Path(folder)
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"--output={folder} cannot be a folder, since {parent} is a file; give another folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--output={folder} cannot be written; give a folder that you may write to.")
    free = shutil.disk_usage(parent).free
    if num_bytes > free:
        raise UserError(
            f"The output needs up to {num_bytes / 1e9:.1f} GB, but the disk of --output={folder} has "
            f"{free / 1e9:.1f} GB free; make room or ask for fewer or smaller images."
        )
