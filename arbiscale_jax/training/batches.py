"""Provides the batches of a run, which the host prepares or the devices make themselves."""

from collections.abc import Generator
from contextlib import closing
from functools import partial

import jax

from arbiscale_jax import data, models
from arbiscale_jax.artifacts.vocabulary import Vocabulary, vocabulary_of
from arbiscale_jax.data import synthesis
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.mesh import batch_sharding, replicate, shard_rows

from .stages.pixel_denoising import image_sizes


def example_settings(config) -> tuple[tuple[synthesis.Variant, ...], synthesis.Settings]:
    """Returns the variants and settings of data.synthesis for the stage.

    Only the latent stages of super-resolution damage the examples.

    Raises:
      UserError: if a field makes no sense; the message names the first one.
    """
    variants, settings = synthesis.from_config(config.data)
    if config.stage == "baseline":
        raise UserError("data.synthesis makes no examples for the stage baseline; set data.synthesis.enabled=False.")
    condition = config.model.condition
    damage = condition.enabled and config.stage != "first_stage"
    return variants, settings._replace(upsampling=round(condition.upsampling), damage=damage)


def vocabulary(config) -> Vocabulary | None:
    """Returns what the labels of a run's examples say, or None if the run has no labels."""
    return None if config.stage == "baseline" else vocabulary_of(models.complete(config.model))


def labelling(config) -> dict[str, Vocabulary]:
    """Returns the arguments by which functions of `data` make labels; a run without labels gives none."""
    known = vocabulary(config)
    return {"vocabulary": known} if known else {}


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
    size, known = config.train.batch_size, labelling(config)
    if not config.data.synthesis.enabled:
        host = data.train_batches(config.data, config.seed, size, start_step, rows, **known)
        found = on_devices(host, rows, size, mesh)
        return _in_sizes(found, image_sizes(config), start_step) if config.stage == "baseline" else found
    variants, settings = example_settings(config)
    store = replicate(synthesis.store_from_config(config.data, **known), mesh)
    return synthesis.batches(store, variants, settings, config.seed, size, start_step, batch_sharding(mesh))


def _in_sizes(batches: Generator[dict], sizes: list[int], start_step: int) -> Generator[dict]:
    """Resizes the images of each batch to one of several sides; these take turns."""
    with closing(batches):
        for step, batch in enumerate(batches, start_step):
            side = sizes[step % len(sizes)]
            yield batch if batch["image"].shape[1] == side else {**batch, "image": _resize(batch["image"], side)}


@partial(jax.jit, static_argnums=1)
def _resize(x, side: int):
    return jax.image.resize(x, (len(x), side, side, 3), "cubic", precision=jax.lax.Precision.HIGHEST)


def on_devices(batches: data.Batches, rows: list[int], batch_size: int, mesh) -> Generator[dict]:
    """Puts this process's rows of each batch on its devices, and closes `batches` at the end."""
    with closing(batches):
        for batch in batches:
            yield shard_rows(batch, rows, batch_size, mesh)
