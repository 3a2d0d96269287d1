"""Encodes the images of stage 2 once and keeps their latents on disk for training.

In the base configuration the encoder E takes three quarters of the FLOPs of a training step. The cache holds
data.latent_cache_views augmented examples of every training image: the mean that E gives and, with double_z, the
log-variance, so that each step still samples from the posterior; for super-resolution it also holds the mean that E
gives for the LR image, and with data.labels the label. The means are not multiplied by scale_factor. Validation still
encodes its own images.
"""

import time
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from arbiscale_jax import data
from arbiscale_jax.artifacts.weights import hash_weights
from arbiscale_jax.data import latent_store
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime import mesh
from arbiscale_jax.runtime.progress import Report

from .batches import vocabulary
from .stages import latent

FORMAT = 1
_SECONDS = 5.0  # least time between two commits to disk


def check(config) -> None:
    """Raises UserError if data.latent_cache is set for a stage that cannot use it, or has fewer than one view."""
    if config.data.latent_cache and config.stage != "diffusion":
        raise UserError(
            f"data.latent_cache serves stage diffusion, and stage {config.stage} needs the images; leave it empty."
        )
    if config.data.latent_cache_views < 1:
        raise UserError(f"data.latent_cache_views must be at least 1, got {config.data.latent_cache_views}.")


def cached_batches(config, frozen, start_step: int, rows: list[int] | None, report: Report) -> data.Batches:
    """Encodes the data set, unless that is done already, and iterates over batches of it; batch k depends on (seed, k).

    Args:
      config: the configuration of the run.
      frozen: the frozen weights of the stage, of which the encoder is used.
      start_step: the number of updates that are already done.
      rows: the rows of each batch that are wanted, or None for all.
      report: where messages go.

    Returns:
      An iterator over {"moments": [b h w c or 2c], "condition": [b h w c], for super-resolution only, "label":
      [b 1 + n], with labels only}, in float32.

    Raises:
      UserError: if the folder cannot be written, or a field or the data source is wrong.
    """
    examples, made_from = data.views(config.data, config.seed, config.data.latent_cache_views, vocabulary(config))
    identity = {
        "format": FORMAT,
        "encoder": hash_weights(frozen["first_stage"]["encoder"]),
        "dtype": config.dtype,
        "first_stage": config.model.first_stage.to_dict(),
        "condition": config.model.condition.to_dict(),
        "data": made_from,
    }
    folder = latent_store.store_folder(config.data.latent_cache, identity)
    if latent_store.finished(folder) < len(examples) and jax.process_index() == 0:
        waiting = f"Another process is encoding into {folder}; waiting for it."
        with latent_store.alone(folder, lambda: report.say(waiting)):
            _build(config, folder, identity, examples, jax.device_get(frozen), report)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("latent_cache")
    if latent_store.finished(folder) < len(examples):
        raise UserError(f"{folder} holds no latents; data.latent_cache must be a folder that all processes share.")
    report.say(f"Training on {len(examples):,} encoded examples in {folder}.")
    return data.shuffled_batches(latent_store.Reader(folder), config.seed, config.train.batch_size, start_step, rows)


def make_encoder(nets: latent.Nets):
    """Returns the compiled function (frozen, batch of images) -> the arrays that the cache holds of the batch."""

    def encode(frozen, batch):
        moments = [x for x in latent.posterior(nets, frozen, batch) if x is not None]
        c = latent.condition(nets, {**frozen, "scale_factor": jnp.float32(1)}, batch)
        told = {"label": batch["label"].astype(jnp.float32)} if "label" in batch else {}
        return {"moments": jnp.concatenate(moments, axis=-1)} | ({} if c is None else {"condition": c}) | told

    return jax.jit(encode)


def _build(config, folder: Path, identity: dict, examples, frozen, report: Report) -> None:
    """Encodes the examples that the cache does not hold yet, on the devices of this host."""
    size, num, local = config.train.batch_size, len(examples), mesh.make_mesh(jax.local_devices())
    encode, frozen = make_encoder(latent.build_nets(config)), mesh.replicate(frozen, local)
    writer, committed = None, time.monotonic()
    if (start := latent_store.finished(folder)) >= num:
        return
    report.say(f"Encoding {num - start:,} of {num:,} examples into {folder}.")
    with closing(data.view_batches(examples, size, start, config.data.workers)) as batches:
        for batch in batches:
            n = len(batch["image"])
            padded = {name: np.concatenate([x, x[:1].repeat(size - n, axis=0)]) for name, x in batch.items()}
            batch = mesh.shard_batch(padded, local)  # padded, so that all batches have one shape
            if writer is None:
                shapes = {name: x.shape[1:] for name, x in jax.eval_shape(encode, frozen, batch).items()}
                writer = latent_store.Writer(folder, identity, num, shapes)
            writer.add({name: x[:n] for name, x in jax.device_get(encode(frozen, batch)).items()})
            if writer.done == num or time.monotonic() - committed > _SECONDS:
                writer.commit()
                committed = time.monotonic()
                report.show(writer.done / num, f"encoding {writer.done:,}/{num:,}")
