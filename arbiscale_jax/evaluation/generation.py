"""Measures generated images against real ones; features are written to disk in shards, and images are not kept.

A shard holds the features of SHARD consecutive images at every size. Finished shards are found again, so an interrupted
measurement, or one of more images, continues where the earlier one ended.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from arbiscale_jax.artifacts.weights import hash_weights
from arbiscale_jax.data import Source
from arbiscale_jax.inference import Model, batch
from arbiscale_jax.inference.from_noise import generate
from arbiscale_jax.inference.prompts import make_request
from arbiscale_jax.runtime.mesh import replicate, shard_batch
from arbiscale_jax.runtime.whole_files import replacing

from . import distances
from .features import Extractor
from .patches import PATCHES, cut_patches
from .protocols import fit
from .self_ssim import self_ssim

SELF_SSIM_IMAGES = 5000  # as in the paper's Table 1
SHARD = 256
_SELF_SSIM, _NUMBERS = "self_ssim", "numbers"  # keys of the matrices, and of the images' numbers, in a shard

Size = tuple[int, int]


def size_name(size: Size) -> str:
    """Returns the name under which arrays and rows of this size are stored."""
    return f"{size[0]}x{size[1]}"


def patch_name(size: Size) -> str:
    """Returns the name under which the features of windows of images of this size are stored, PATCHES rows an image."""
    return f"{size_name(size)}_patches"


def write_shards(
    folder: Path, num: int, compute: Callable[[range], Mapping[str, Any]], advance: Callable[[int], None]
) -> list[Path]:
    """Computes arrays for the items 0 .. num - 1, one shard at a time; finished shards are not computed again.

    Args:
      folder: the folder for the shards.
      num: the number of items.
      compute: (numbers) -> arrays with one row per item, fewer if items were left out.
      advance: a function that is called with the number of items that were found on disk.

    Returns:
      The files of the shards in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, num, SHARD):
        numbers, path = range(start, min(start + SHARD, num)), folder / f"{start:08d}.npz"
        paths.append(path)
        if _covered(path) >= numbers.stop:
            advance(len(numbers))
        else:
            with replacing(path) as part, part.open("wb") as f:
                np.savez(f, stop=numbers.stop, **compute(numbers))
    return paths


def _covered(path: Path) -> int:
    """Returns the end of the range of items that a shard covers, or 0 if there is no complete shard."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:  # given a path, numpy would leave a damaged file open
            return int(arrays["stop"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return 0


def read_shards(paths: Sequence[Path], key: str, num: int | None = None) -> Iterator[np.ndarray]:
    """Yields the arrays `key` of the shards, up to the first `num` rows of all shards together."""
    for path in paths:
        with np.load(path) as arrays:
            rows = arrays[key][:num] if key in arrays else np.zeros(0)
        if num is not None:
            num -= len(rows)
        if len(rows):
            yield rows


class Job(NamedTuple):
    """Says how features are computed and where they are stored."""

    sizes: Sequence[Size]  # the image sizes
    extractor: Extractor | None  # the network; None means SelfSSIM alone
    batch_size: int  # the number of images at a time
    folder: Path  # the folder for the folders of shards
    advance: Callable[[int], None]  # a function that is called with the number of images done
    patch: int = 0  # the side of the windows whose features are computed too, at larger sizes; 0 means none

    def patched(self, size: Size) -> bool:
        """Tells whether pictures of a size have windows."""
        return 0 < self.patch < min(size)


def real_features(source: Source, stamp: list, num: int, job: Job, kind: str = "real") -> list[Path]:
    """Writes shards of features of real images, a fixed random choice if the source has more than are asked for.

    For each size, the largest central window of that aspect ratio is resized to it (antialiased bicubic). Images that
    cannot be read are left out.

    Args:
      source: the images.
      stamp: the result of `source_stamp`.
      num: the number of images.
      job: how features are computed, with an extractor.
      kind: how the folder of the shards begins.

    Returns:
      The files of the shards in order; the array numbers says which image of the source each row is of.
    """
    sizes, extractor, batch_size, folder, advance = job[:5]
    if extractor is None:
        raise ValueError("Features of real images need an extractor.")
    order = np.random.default_rng(0).permutation(len(source))

    def compute(numbers):
        found: dict[str, list] = {_NUMBERS: []}
        for start in range(numbers.start, numbers.stop, batch_size):
            some = range(start, min(start + batch_size, numbers.stop))
            read = [(i, image) for i in some if (image := source.read(int(order[i]))) is not None]
            found[_NUMBERS] += [int(order[i]) for i, _ in read]
            for size in sizes if read else ():
                fitted = _padded(np.stack([fit(image, size) for _, image in read]), batch_size)
                for key, rows in _rows(job, extractor, size, fitted, [i for i, _ in read]):
                    found.setdefault(key, []).append(rows)
            advance(len(some))
        nothing = [np.zeros((0, extractor.dim), np.float32)]
        keys = [size_name(size) for size in sizes] + [patch_name(size) for size in sizes if job.patched(size)]
        arrays: dict[str, np.ndarray] = {key: np.concatenate(found.get(key, nothing)) for key in keys}
        return arrays | {_NUMBERS: np.array(found[_NUMBERS], np.int64)}

    return write_shards(_shard_folder(job, kind, stamp), num, compute, advance)


def _rows(job: Job, extractor: Extractor, size: Size, images: np.ndarray, numbers: Sequence[int]) -> Iterator[tuple]:
    """Yields (key of a shard, features): those of the first len(numbers) images, and those of their windows."""
    yield size_name(size), extractor.apply(images)[: len(numbers)]
    if job.patched(size):
        windows = cut_patches(images, numbers, job.patch)
        rows = np.stack([extractor.apply(some)[: len(numbers)] for some in windows], axis=1)  # n patches d
        yield patch_name(size), rows.reshape(-1, rows.shape[-1])


def spread(model: Model, mesh: Mesh) -> Model:
    """Returns a copy of the model whose weights are on every device of the mesh, for `generated_batch`."""
    params = replicate(model.params, mesh)
    return Model(model.config, params, model.scale_factor, dtype=model.dtype, tile=model.tile)


def generated_batch(
    model: Model, start: int, batch_size: int, sizes: Sequence[Size], mesh: Mesh, **sampling
) -> list[np.ndarray]:
    """Renders the latents start .. start + batch_size - 1 at each size.

    Latent i is that of `model.generate`, up to rounding.

    Args:
      model: the model, as `spread` returns it.
      start: the number of the first latent.
      batch_size: the number of latents.
      sizes: the image sizes.
      mesh: the device mesh.
      **sampling: seed, steps, sampler, eta, prompt, guidance, guidance_interval, canvas and coarse.

    Returns:
      One array uint8 [batch_size, H, W, 3] per size.
    """
    return render_numbers(model, range(start, start + batch_size), sizes, mesh, **sampling)


def render_numbers(
    model: Model, numbers: Sequence[int], sizes: Sequence[Size], mesh: Mesh, **sampling
) -> list[np.ndarray]:
    """Renders the latents of these numbers, a multiple of the mesh's size, at each size; see `generated_batch`."""
    engine = model.engine._replace(put=lambda cells: shard_batch({"cells": cells}, mesh)["cells"])
    features = batch.decode_features(engine, generate(engine, numbers, make_request(engine, sampling)))
    return [batch.render_features(engine, features, size) for size in sizes]


def generated_features(model: Model, num: int, job: Job, mesh: Mesh, *, with_self_ssim: bool, **sampling) -> list[Path]:
    """Writes shards of features of generated images, and SelfSSIM matrices of the first SELF_SSIM_IMAGES of them.

    Args:
      model: the model, as `spread` returns it.
      num: the number of images.
      job: how features are computed.
      mesh: the device mesh.
      with_self_ssim: whether to compute the SelfSSIM matrices.
      **sampling: as in `generated_batch`.

    Returns:
      The files of the shards in order.
    """
    sizes, extractor, batch_size, folder, advance = job[:5]

    def compute(numbers):
        found = {}
        for start in range(numbers.start, numbers.stop, batch_size):
            some = range(start, min(start + batch_size, numbers.stop))
            renders = generated_batch(model, start, batch_size, sizes, mesh, **sampling)  # a whole batch: one program
            for size, images in zip(sizes, renders, strict=True):
                for key, rows in _rows(job, extractor, size, images, some) if extractor else ():
                    found.setdefault(key, []).append(rows)
            if with_self_ssim:
                compared = range(min(len(some), max(0, SELF_SSIM_IMAGES - start)))
                matrices = [self_ssim([images[i] for images in renders]) for i in compared]
                shape = (len(compared), len(sizes), len(sizes))
                found.setdefault(_SELF_SSIM, []).append(np.array(matrices).reshape(shape))
            advance(len(some))
        return {key: np.concatenate(rows) for key, rows in found.items()}

    about = [model_stamp(model), {key: sampling[key] for key in sorted(sampling)}, with_self_ssim]
    return write_shards(_shard_folder(job, "generated", about), num, compute, advance)


def measure(
    real: Mapping[Size, Sequence[Path]],
    generated: Sequence[Path],
    num: int,
    sizes: Sequence[Size],
    extractor: Extractor,
    metrics: Sequence[str],
) -> list[dict]:
    """Compares the features of `num` real and `num` generated images at each size.

    Args:
      real: the shards of real images for each size.
      generated: the shards of generated images.
      num: the number of images of each kind.
      sizes: the image sizes.
      extractor: the network that made the features.
      metrics: some of fd, kd, precision, recall and patch_fd; sizes without windows have no patch_fd.

    Returns:
      One dict per size with size, images and the metrics; the distances have the names that the extractor gives them.
    """
    rows = []
    for size in sizes:
        key, row = size_name(size), {"size": size_name(size), "images": num}
        if "fd" in metrics:
            row[extractor.frechet] = _frechet(real[size], generated, key, num)
        if "patch_fd" in metrics and count_rows(generated[:1], patch_name(size)):
            row[f"patch {extractor.frechet}"] = _frechet(real[size], generated, patch_name(size), num * PATCHES)
        if {"kd", "precision", "recall"} & set(metrics):
            a, b = (np.concatenate(list(read_shards(paths, key, num))) for paths in (real[size], generated))
            if "kd" in metrics:
                row[extractor.kernel], row[f"{extractor.kernel}_std"] = distances.kernel_distance(a, b)
            if {"precision", "recall"} & set(metrics):
                found = dict(zip(("precision", "recall"), distances.precision_recall(a, b), strict=True))
                row |= {name: found[name] for name in metrics if name in found}
        rows.append(row)
    return rows


def _frechet(real: Sequence[Path], generated: Sequence[Path], key: str, num: int) -> float:
    return distances.frechet_distance(*(distances.moments(read_shards(paths, key, num)) for paths in (real, generated)))


def self_ssim_matrix(generated: Sequence[Path], num: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Averages SelfSSIM over images.

    Args:
      generated: the shards of generated images.
      num: the number of images.

    Returns:
      The mean, [S, S].
      Its standard error, [S, S].
      The number of images.
    """
    found = np.concatenate(list(read_shards(generated, _SELF_SSIM, num)))
    n = len(found)
    error = found.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(found.shape[1:], np.nan)
    return found.mean(axis=0), error, n


def read_numbers(paths: Sequence[Path]) -> np.ndarray:
    """Returns the numbers of the images in the source whose features are in shards of `real_features`, in order."""
    return np.concatenate(list(read_shards(paths, _NUMBERS)))


def count_rows(paths: Sequence[Path], key: str) -> int:
    """Counts the rows of the array `key` over all shards."""
    return sum(len(rows) for rows in read_shards(paths, key))


def model_stamp(model: Model) -> list:
    """Returns what identifies a model: its configuration and a hash of its weights."""
    config = json.dumps(model.config, sort_keys=True, default=lambda x: x.to_dict())
    return [config, model.scale_factor, hash_weights(model.params)]


def source_stamp(source: Source) -> list:
    """Returns what identifies images: their names, and the sizes and times of the files that hold them."""
    return [[source.name(i) for i in range(len(source))], source.stamps()]


def _shard_folder(job: Job, kind: str, about: list) -> Path:
    """Returns a folder whose name depends on all settings, so that features of other settings are never mixed in."""
    extractor, patch = job.extractor, job.patch if any(map(job.patched, job.sizes)) else 0
    about = [
        about,
        [size_name(size) for size in job.sizes],
        extractor and [extractor.name, extractor.about, extractor.digest],
        *([patch] if patch else []),
    ]
    return job.folder / f"{kind}_{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}"


def _padded(images: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([images, np.repeat(images[-1:], count - len(images), axis=0)])
