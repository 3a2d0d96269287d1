"""The one owner of the device mesh: batches divided over all devices, what is trained whole on each or divided too.

Axes: "data" and "fsdp" (train.fsdp devices). A batch is divided over both; the arrays of the training state over "fsdp"
alone, so that each device holds the same part of them in every row of the mesh.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from arbiscale_jax.errors import UserError

DATA, FSDP = "data", "fsdp"


def make_mesh(devices=None, fsdp: int = 1) -> Mesh:
    """Lays `devices` (default: all of all hosts) out, `fsdp` along the axis "fsdp" and the rest along "data".

    Raises: UserError if they do not divide so.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise UserError(f"train.fsdp must divide {len(devices)}, the number of devices, got {fsdp}.")
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, (DATA, FSDP), (AxisType.Auto, AxisType.Auto), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree, mesh: Mesh):
    """Puts a whole copy of every array, the same on all hosts, on every device."""
    return jax.device_put(tree, replicated(mesh))


def state_sharding(shapes, mesh: Mesh, least: int):
    """Says how the arrays of a training state lie: divided over "fsdp" by the largest axis that divides, else whole.

    Args: shapes, a tree of arrays or of their shapes; least, elements from which on an array is divided.
    Returns: a tree of shardings.
    """
    parts = mesh.shape[FSDP]

    def place(x):
        axes = [axis for axis, length in enumerate(x.shape) if length % parts == 0]
        if parts == 1 or x.size < max(least, 1) or not axes:
            return replicated(mesh)
        axis = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*axis * [None], FSDP))

    return jax.tree.map(place, shapes)


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises: UserError if a global batch does not divide over the devices and the micro-batches."""
    if accumulate < 1:
        raise UserError(f"train.accumulate must be at least 1, got {accumulate}.")
    if batch_size < 1 or batch_size % (mesh.size * accumulate):
        times = f" times train.accumulate={accumulate}" if accumulate > 1 else ""
        raise UserError(
            f"train.batch_size={batch_size} must be a positive multiple of {mesh.size}, the number of devices{times}."
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis divided over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def local_rows(batch_size: int, mesh: Mesh) -> list[int]:
    """Lists the rows of a global batch that this process's devices hold, in ascending order."""
    parts = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return sorted({row for (part,) in parts for row in range(*part.indices(batch_size))})


def shard_batch(batch: dict, mesh: Mesh) -> dict:
    """Splits a global host batch, the same on all hosts, over the devices by its first axis.

    A batch that does not divide (validation) is replicated instead.
    """
    whole = any(len(x) % mesh.size for x in batch.values())
    sharding = replicated(mesh) if whole else batch_sharding(mesh)

    def put(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return {name: put(x) for name, x in batch.items()}


def shard_rows(batch: dict, rows: list[int], batch_size: int, mesh: Mesh) -> dict:
    """Joins every process's rows of a global batch, `rows` as `local_rows` lists them, to arrays over all devices."""
    sharding, first = batch_sharding(mesh), {row: i for i, row in enumerate(rows)}

    def put(x):
        x = np.asarray(x)

        def part(index):  # a device's rows are neighbours, in the batch as in `rows`
            start, stop, _ = index[0].indices(batch_size)
            return x[first[start] : first[start] + stop - start]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), sharding, part)

    return {name: put(x) for name, x in batch.items()}
