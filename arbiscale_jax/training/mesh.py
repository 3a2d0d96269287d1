"""The one owner of the device mesh: all devices on one axis, batches sharded over it, everything else replicated."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from arbiscale_jax.errors import UserError

AXIS = "data"


def make_mesh(devices=None) -> Mesh:
    """Lays `devices` (default: all of all hosts) along the axis "data"."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree, mesh: Mesh):
    """Puts a whole copy of every array, the same on all hosts, on every device."""
    return jax.device_put(tree, replicated(mesh))


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises: UserError if a global batch does not divide over the devices and the micro-batches."""
    if accumulate < 1:
        raise UserError(f"train.accumulate must be at least 1, got {accumulate}.")
    if batch_size < 1 or batch_size % (mesh.size * accumulate):
        times = f" times train.accumulate={accumulate}" if accumulate > 1 else ""
        raise UserError(
            f"train.batch_size={batch_size} must be a positive multiple of {mesh.size}, the number of devices{times}."
        )


def shard_batch(batch: dict, mesh: Mesh) -> dict:
    """Splits a global host batch, the same on all hosts, over the devices by its first axis.

    A batch that does not divide (validation) is replicated instead.
    """
    whole = any(len(x) % mesh.size for x in batch.values())
    sharding = NamedSharding(mesh, PartitionSpec() if whole else PartitionSpec(AXIS))

    def put(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return {name: put(x) for name, x in batch.items()}
