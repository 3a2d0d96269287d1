"""Measures generated images against real ones: features are streamed to disk in shards, images are not kept.

A shard holds the features of SHARD consecutive images at every size. Finished shards are found again, so that an
interrupted measurement, or one of more images, goes on where it was.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from arbiscale_jax.data import Source
from arbiscale_jax.inference import Model, batch
from arbiscale_jax.training.mesh import replicate, shard_batch
from arbiscale_jax.weights import hash_weights
from arbiscale_jax.whole_files import replacing

from . import distances
from .features import Extractor
from .protocols import fit
from .self_ssim import self_ssim

SELF_SSIM_IMAGES = 5000  # as in the paper's Table 1
SHARD = 256
_SELF_SSIM = "self_ssim"  # key in a shard

Size = tuple[int, int]


def size_name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def write_shards(
    folder: Path, num: int, compute: Callable[[range], Mapping[str, np.ndarray]], advance: Callable[[int], None]
) -> list[Path]:
    """Computes arrays of the items 0 .. num - 1, shard by shard; what a finished shard covers is not computed again.

    Args: compute, (numbers) -> arrays with a row an item, fewer where items were left out; advance, called with the
      number of items that were found on disk.
    Returns: the shards' files in order.
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
    """Returns the end of the numbers that a shard covers, 0 without a whole one."""
    try:
        with np.load(path) as arrays:
            return int(arrays["stop"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return 0


def read_shards(paths: Sequence[Path], key: str, num: int | None = None) -> Iterator[np.ndarray]:
    """Yields the arrays `key` of the shards, the first `num` rows of all together."""
    for path in paths:
        with np.load(path) as arrays:
            rows = arrays[key][:num]
        if num is not None:
            num -= len(rows)
        if len(rows):
            yield rows


def real_features(
    source: Source,
    stamp: list,
    num: int,
    sizes: Sequence[Size],
    extractor: Extractor,
    batch_size: int,
    folder: Path,
    advance: Callable[[int], None],
) -> list[Path]:
    """Writes shards of features of `num` images, a fixed random choice where the source has more.

    For each size an image's largest central window of that aspect ratio is resized to it (antialiased bicubic). Images
    that cannot be read are left out.

    Args: stamp, of `source_stamp`.
    """
    order = np.random.default_rng(0).permutation(len(source))

    def compute(numbers):
        found = {size_name(size): np.zeros((0, extractor.dim), np.float32) for size in sizes}
        for start in range(numbers.start, numbers.stop, batch_size):
            some = range(start, min(start + batch_size, numbers.stop))
            images = [image for image in (source.read(int(order[i])) for i in some) if image is not None]
            for size in sizes if images else ():
                fitted = _padded(np.stack([fit(image, size) for image in images]), batch_size)
                rows = extractor.apply(fitted)[: len(images)]
                found[size_name(size)] = np.concatenate([found[size_name(size)], rows])
            advance(len(some))
        return found

    return write_shards(_shard_folder(folder, "real", stamp, sizes, extractor), num, compute, advance)


def spread(model: Model, mesh: Mesh) -> Model:
    """Returns the model with its weights on every device of the mesh, for `generated_batch`."""
    return Model(model.config, replicate(model.params, mesh), model.scale_factor)


def generated_batch(
    model: Model, start: int, batch_size: int, sizes: Sequence[Size], mesh: Mesh, **sampling
) -> list[np.ndarray]:
    """Renders the latents start .. start + batch_size - 1 at each size: uint8 [batch_size, H, W, 3] each.

    Args: model, of `spread`; sampling, seed, steps, sampler, eta. Latent i is that of `model.generate`, up to rounding.
    """
    numbers = range(start, start + batch_size)
    z = batch.sample_numbers(model, numbers, put=lambda z_T: shard_batch({"z": z_T}, mesh)["z"], **sampling)
    features = batch.decode_features(model, z)
    return [batch.render_features(model, features, size) for size in sizes]


def generated_features(
    model: Model,
    num: int,
    sizes: Sequence[Size],
    extractor: Extractor | None,
    batch_size: int,
    mesh: Mesh,
    folder: Path,
    advance: Callable[[int], None],
    *,
    with_self_ssim: bool,
    **sampling,
) -> list[Path]:
    """Writes shards of features, and SelfSSIM matrices of the first SELF_SSIM_IMAGES, of generated images.

    Args: model, of `spread`; extractor, None for SelfSSIM alone; batch_size, images at once; sampling, as in
      `generated_batch`.
    """

    def compute(numbers):
        found = {}
        for start in range(numbers.start, numbers.stop, batch_size):
            some = range(start, min(start + batch_size, numbers.stop))
            renders = generated_batch(model, start, batch_size, sizes, mesh, **sampling)  # whole: one program
            for size, images in zip(sizes, renders):
                if extractor:
                    found.setdefault(size_name(size), []).append(extractor.apply(images)[: len(some)])
            if with_self_ssim:
                compared = range(min(len(some), max(0, SELF_SSIM_IMAGES - start)))
                matrices = [self_ssim([images[i] for images in renders]) for i in compared]
                shape = (len(compared), len(sizes), len(sizes))
                found.setdefault(_SELF_SSIM, []).append(np.array(matrices).reshape(shape))
            advance(len(some))
        return {key: np.concatenate(rows) for key, rows in found.items()}

    about = [model_stamp(model), {key: sampling[key] for key in sorted(sampling)}, with_self_ssim]
    return write_shards(_shard_folder(folder, "generated", about, sizes, extractor), num, compute, advance)


def measure(
    real: Sequence[Path],
    generated: Sequence[Path],
    num: int,
    sizes: Sequence[Size],
    extractor: Extractor,
    metrics: Sequence[str],
) -> list[dict]:
    """Compares `num` images on each side, at each size.

    Returns: for each size: size, images, and the metrics, the distances under the extractor's names for them.
    """
    rows = []
    for size in sizes:
        key, row = size_name(size), {"size": size_name(size), "images": num}
        if "fd" in metrics:
            moments = [distances.moments(read_shards(paths, key, num)) for paths in (real, generated)]
            row[extractor.frechet] = distances.frechet_distance(*moments)
        if {"kd", "precision", "recall"} & set(metrics):
            a, b = (np.concatenate(list(read_shards(paths, key, num))) for paths in (real, generated))
            if "kd" in metrics:
                row[extractor.kernel], row[f"{extractor.kernel}_std"] = distances.kernel_distance(a, b)
            if {"precision", "recall"} & set(metrics):
                found = dict(zip(("precision", "recall"), distances.precision_recall(a, b)))
                row |= {name: found[name] for name in metrics if name in found}
        rows.append(row)
    return rows


def self_ssim_matrix(generated: Sequence[Path], num: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Averages SelfSSIM over images: mean and standard error, [S, S] each, and the number of images."""
    found = np.concatenate(list(read_shards(generated, _SELF_SSIM, num)))
    n = len(found)
    error = found.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(found.shape[1:], np.nan)
    return found.mean(axis=0), error, n


def count_rows(paths: Sequence[Path], key: str) -> int:
    return sum(len(rows) for rows in read_shards(paths, key))


def model_stamp(model: Model) -> list:
    """Identifies a model by its configuration and weights."""
    config = json.dumps(model.config, sort_keys=True, default=lambda x: x.to_dict())
    return [config, model.scale_factor, hash_weights(model.params)]


def source_stamp(source: Source) -> list:
    """Identifies images: their names, and sizes and times of the files that hold them."""
    return [[source.name(i) for i in range(len(source))], source.stamps()]


def _shard_folder(folder: Path, kind: str, about: list, sizes: Sequence[Size], extractor: Extractor | None) -> Path:
    """A folder's name tells what is in it, so that other settings never find the wrong features."""
    about = [
        about,
        [size_name(size) for size in sizes],
        extractor and [extractor.name, extractor.about, extractor.digest],
    ]
    return folder / f"{kind}_{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}"


def _padded(images: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([images, np.repeat(images[-1:], count - len(images), axis=0)])
