"""Arranges the devices in a mesh and says how batches and training states are divided over it.

The mesh has the axes "data" and "fsdp" (train.fsdp devices). A batch is divided over both. The arrays of the training
state are divided over "fsdp" alone, so that every row of the mesh holds the whole state.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from arbiscale_jax.errors import UserError

DATA, FSDP = "data", "fsdp"


def make_mesh(devices=None, fsdp: int = 1) -> Mesh:
    """Arranges devices in a mesh, `fsdp` of them along the axis "fsdp" and the rest along "data".

    Args:
      devices: the devices; by default all devices of all hosts.
      fsdp: the number of devices over which the training state is divided.

    Returns:
      The mesh.

    Raises:
      UserError: if fsdp does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise UserError(f"train.fsdp must divide {len(devices)}, the number of devices, got {fsdp}.")
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, (DATA, FSDP), (AxisType.Auto, AxisType.Auto), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array of which every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree, mesh: Mesh):
    """Copies every array of a tree, which is the same on all hosts, to every device."""
    return jax.device_put(tree, replicated(mesh))


def state_sharding(shapes, mesh: Mesh, least: int):
    """Chooses how the arrays of a training state are divided over the axis "fsdp".

    An array is divided along the longest of its axes whose length is a multiple of the number of devices; it is whole
    on every device if it has no such axis or is small.

    Args:
      shapes: a tree of arrays or of their shapes.
      mesh: the device mesh.
      least: the number of elements from which on an array is divided.

    Returns:
      A tree of shardings.
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
    """Raises UserError if a global batch cannot be divided evenly over the devices and the micro-batches."""
    if accumulate < 1:
        raise UserError(f"train.accumulate must be at least 1, got {accumulate}.")
    if batch_size < 1 or batch_size % (mesh.size * accumulate):
        times = f" times train.accumulate={accumulate}" if accumulate > 1 else ""
        raise UserError(
            f"train.batch_size={batch_size} must be a positive multiple of {mesh.size}, the number of devices{times}."
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch, whose first axis is divided over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def local_rows(batch_size: int, mesh: Mesh) -> list[int]:
    """Lists the rows of a global batch that this process's devices hold, in ascending order."""
    parts = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return sorted({row for part in parts if part for row in range(*part[0].indices(batch_size))})


def shard_batch(batch: dict, mesh: Mesh) -> dict:
    """Divides a global batch, which is the same on all hosts, over the devices along its first axis.

    A batch whose size is not a multiple of the number of devices, as in validation, is copied to every device instead.
    """
    whole = any(len(x) % mesh.size for x in batch.values())
    sharding = replicated(mesh) if whole else batch_sharding(mesh)

    def put(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return {name: put(x) for name, x in batch.items()}


def shard_rows(batch: dict, rows: list[int], batch_size: int, mesh: Mesh) -> dict:
    """Joins the rows that every process holds of a global batch to arrays over all devices.

    Args:
      batch: this process's rows, arrays [number of rows, ...].
      rows: the places of these rows in the global batch, as `local_rows` lists them.
      batch_size: the size of the global batch.
      mesh: the device mesh.

    Returns:
      Arrays [batch_size, ...], divided along the first axis.
    """
    sharding, first = batch_sharding(mesh), {row: i for i, row in enumerate(rows)}

    def put(x):
        x = np.asarray(x)

        def part(index):  # the rows of one device follow each other, in the batch and in `rows`
            start, stop, _ = index[0].indices(batch_size)
            return x[first[start] : first[start] + stop - start]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), sharding, part)

    return {name: put(x) for name, x in batch.items()}
