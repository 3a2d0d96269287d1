"""Stage 2 on latents that were encoded once: in the base configuration E is three quarters of a step's FLOPs.

The cache holds data.latent_cache_views augmented examples of every training image: E's moments of the image (mean, and
with double_z the log-variance, so that the posterior is still sampled anew each step) and, for SR, of the LR image the
mean. Neither is scaled. Validation goes on encoding its images.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from arbiscale_jax import data
from arbiscale_jax.data import latent_store
from arbiscale_jax.errors import UserError
from arbiscale_jax.weights import hash_weights

from . import latent, mesh
from .reporting import Report

FORMAT = 1
_SECONDS = 5.0  # between two commits


def check(config) -> None:
    """Raises: UserError if data.latent_cache is set where it cannot serve."""
    if config.data.latent_cache and config.stage != "diffusion":
        raise UserError(
            f"data.latent_cache serves stage diffusion, and stage {config.stage} needs the images; leave it empty."
        )
    if config.data.latent_cache_views < 1:
        raise UserError(f"data.latent_cache_views must be at least 1, got {config.data.latent_cache_views}.")


def cached_batches(
    config, frozen, start_step: int, rows: list[int] | None, report: Report
) -> Iterator[dict[str, np.ndarray]]:
    """Encodes the data set unless that was done before, and iterates over batches of it; batch k depends on (seed, k).

    Args: frozen, the stage's frozen weights; rows, those of each batch that are wanted (None: all).
    Returns: an iterator of {"moments": [b h w c or 2c], "condition": [b h w c] (SR)}, float32.
    Raises: UserError if the folder cannot be written, or a field or the source is wrong.
    """
    examples, made_from = data.views(config.data, config.seed, config.data.latent_cache_views)
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
    """Compiles (frozen, batch of images) -> what the cache holds of them."""

    def encode(frozen, batch):
        moments = [x for x in latent.posterior(nets, frozen, batch) if x is not None]
        c = latent.condition(nets, {**frozen, "scale_factor": jnp.float32(1)}, batch)
        return {"moments": jnp.concatenate(moments, axis=-1)} | ({} if c is None else {"condition": c})

    return jax.jit(encode)


def _build(config, folder: Path, identity: dict, examples, frozen, report: Report) -> None:
    """Encodes what is missing of `examples`, over the devices of this host."""
    size, num, local = config.train.batch_size, len(examples), mesh.make_mesh(jax.local_devices())
    encode, frozen = make_encoder(latent.build_nets(config)), mesh.replicate(frozen, local)
    writer, committed = None, time.monotonic()
    if (start := latent_store.finished(folder)) >= num:
        return
    report.say(f"Encoding {num - start:,} of {num:,} examples into {folder}.")
    for batch in data.view_batches(examples, size, start, config.data.workers):
        n = len(batch["image"])
        batch = {name: np.concatenate([x, x[:1].repeat(size - n, axis=0)]) for name, x in batch.items()}  # one shape
        batch = mesh.shard_batch(batch, local)
        if writer is None:
            shapes = {name: x.shape[1:] for name, x in jax.eval_shape(encode, frozen, batch).items()}
            writer = latent_store.Writer(folder, identity, num, shapes)
        writer.add({name: x[:n] for name, x in jax.device_get(encode(frozen, batch)).items()})
        if writer.done == num or time.monotonic() - committed > _SECONDS:
            writer.commit()
            committed = time.monotonic()
            report.show(writer.done / num, f"encoding {writer.done:,}/{num:,}")
