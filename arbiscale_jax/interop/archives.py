"""Checks the archive of a PyTorch file before anything in it is read, so that it takes no more memory than its size."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

from arbiscale_jax.errors import UserError

MOST_PICKLE = 2**28  # largest data.pkl in bytes; it lists tensors and settings, the values are in other members
_BYTES = {  # of one value in each of torch's storages; a storage of another name has at least one byte a value
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}
_ADVICE = "get the file again, as a plain state dict or .safetensors, from a source that you trust"


def read_pickle(path: Path) -> bytes:
    """Returns the pickle of a PyTorch zip file, after checking the archive.

    PyTorch stores members uncompressed, one behind the other. A compressed member could unpack to any size.

    Raises:
      UserError: if a member is compressed, or the members claim more bytes than the file has.
      ValueError, zipfile.BadZipFile: if the file is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for one in members:
            if one.compress_type != zipfile.ZIP_STORED or one.compress_size != one.file_size:
                raise UserError(
                    f"{path} is refused: its member {one.filename} is compressed and would unpack to {one.file_size} "
                    f"bytes, and PyTorch compresses nothing; {_ADVICE}."
                )
        if sum(one.file_size for one in members) > path.stat().st_size:
            raise UserError(f"{path} is refused: its members claim more bytes than the file has; {_ADVICE}.")
        found = next((one for one in members if one.filename.split("/")[1:] == ["data.pkl"]), None)
        if found is None:
            raise ValueError("it holds no data.pkl")
        if found.file_size > MOST_PICKLE:
            raise UserError(f"{path} is refused: its data.pkl has {found.file_size} bytes; {_ADVICE}.")
        return archive.read(found)


def check_storages(path: Path, storages: Iterable[tuple[str, str, int]]) -> None:
    """Raises UserError if a tensor's storage claims more bytes than its member of the archive has.

    Args:
      path: the file.
      storages: (type, key, number of values) of each storage that the pickle names.
    """
    with zipfile.ZipFile(path) as archive:
        sizes = {"/".join(one.filename.split("/")[1:]): one.file_size for one in archive.infolist()}
    for kind, key, count in storages:
        claimed, there = count * _BYTES.get(kind, 1), sizes.get(f"data/{key}", 0)
        if claimed > there:
            raise UserError(
                f"{path} is refused: a tensor claims {claimed} bytes of storage, of which the file has {there}; "
                f"{_ADVICE}."
            )
