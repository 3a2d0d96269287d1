"""Provides the batches of a run, which the host prepares or the devices make themselves."""

from collections.abc import Generator
from contextlib import closing

from arbiscale_jax import data
from arbiscale_jax.data import synthesis
from arbiscale_jax.runtime.mesh import batch_sharding, replicate, shard_rows


def example_settings(config) -> tuple[tuple[synthesis.Variant, ...], synthesis.Settings]:
    """Returns the variants and settings of data.synthesis for the stage.

    Only the latent stages of super-resolution damage the examples.

    Raises:
      UserError: if a field makes no sense; the message names the first one.
    """
    variants, settings = synthesis.from_config(config.data)
    condition = config.model.condition
    damage = condition.enabled and config.stage != "first_stage"
    return variants, settings._replace(upsampling=round(condition.upsampling), damage=damage)


def train_batches(config, start_step: int, rows: list[int], mesh) -> Generator[dict]:
    """Iterates over the training batches, placed on the devices, from the batch of update `start_step` on.

    Args:
      config: the configuration of the run.
      start_step: the number of updates that are already done.
      rows: the rows of each batch that this process's devices hold.
      mesh: the mesh of all devices.

    Yields:
      Dicts of arrays [batch_size, ...].
    """
    size = config.train.batch_size
    if not config.data.synthesis.enabled:
        return on_devices(data.train_batches(config.data, config.seed, size, start_step, rows), rows, size, mesh)
    variants, settings = example_settings(config)
    store = replicate(synthesis.store_from_config(config.data), mesh)
    return synthesis.batches(store, variants, settings, config.seed, size, start_step, batch_sharding(mesh))


def on_devices(batches: data.Batches, rows: list[int], batch_size: int, mesh) -> Generator[dict]:
    """Puts this process's rows of each batch on its devices, and closes `batches` at the end."""
    with closing(batches):
        for batch in batches:
            yield shard_rows(batch, rows, batch_size, mesh)
