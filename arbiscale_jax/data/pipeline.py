"""From sources to batches, through grain."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import grain
import numpy as np
from absl import flags

from arbiscale_jax.errors import UserError

from .degradations import make_shrink
from .processes import follow_parent, start_quiet_tracker
from .sources import SOURCES, Source, make_source
from .transforms import example, val_example

_BUFFER = 4  # batches ready ahead of the training
_SHUFFLED = 2048  # records shuffled at once, at least: grain spends 30 ms / n on a record where there are only n
_VAL_FIELDS = ("image_size", "lr_size", "target_max", "target_patch", "center_crop")
_EXAMPLE_FIELDS = (*_VAL_FIELDS, "flip", "transpose", "recolor", "min_crop", "target_min")
_SOURCE_FIELDS = ("image_size", "split_file", "val_split_file", "tfds_dir", "image_feature")

logger = logging.getLogger(__name__)


def train_batches(
    config: Mapping[str, Any], seed: int, batch_size: int, start_step: int = 0, rows: Sequence[int] | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over the batches start_step, start_step + 1, ... without end; batch k is a pure function of (seed, k).

    Args: config, config.data; seed, any integer; batch_size, of all devices together; rows, those of each batch that
      are wanted (default: all), nothing else is read. Every image comes equally often, in an order drawn anew each
      round. config.workers processes (0: one thread) prepare batches ahead, and end with this one, however it ends; a
      script that uses processes needs the `if __name__ == "__main__"` guard.
    Returns: an iterator of `transforms.example`'s arrays with a leading batch axis; its close() ends the loader.
    Raises: UserError if a field or the source is wrong.
    """
    transform = _make_transform(config)
    if batch_size < 1 or start_step < 0:
        raise UserError(f"Batch size >= 1 and first step >= 0 must hold, got {batch_size} and {start_step}.")
    examples = _in_random_order(train_source(config, _cache_bytes(config)), seed).random_map(transform)
    return _start(_batched(examples, batch_size, rows)[start_step:], config["workers"])


def views(config: Mapping[str, Any], seed: int, num: int) -> tuple[grain.MapDataset, dict[str, Any]]:
    """Draws `num` examples of every training image; example i is a pure function of (seed, i).

    Returns: the examples (v * images + i is view v of image i), and what identifies them: every field that they depend
      on, the images' names, their files' sizes and times, and the seed, as JSON-like values.
    Raises: UserError if a field or the source is wrong.
    """
    transform = _make_transform(config)
    source = train_source(config, _cache_bytes(config))
    fields = (*_EXAMPLE_FIELDS, *_SOURCE_FIELDS, "source", "root", "degradation", "lr_scale_min", "lr_scale_max")
    identity = {field: config[field] for field in fields} | {"real": dict(config["real"]), "seed": seed, "views": num}
    identity["images"] = [source.name(i) for i in range(len(source))]
    identity["files"] = source.stamps()
    return grain.MapDataset.source(source).repeat(num).seed(seed % 2**32).random_map(transform), identity


def view_batches(
    examples: grain.MapDataset, batch_size: int, start: int, workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches `views` in order, from example `start` to the last; the last batch may be smaller."""
    return _start(examples[start:].batch(batch_size, drop_remainder=False), workers)


def shuffled_batches(
    source: Sequence[Mapping[str, np.ndarray]],
    seed: int,
    batch_size: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates without end over prepared examples in an order drawn anew each round; batch k depends on (seed, k)."""
    return _start(_batched(_in_random_order(source, seed), batch_size, rows)[start_step:], workers=0)


class _Rows:
    """The examples of some rows of every batch of `batch_size`, in order."""

    def __init__(self, examples: grain.MapDataset, batch_size: int, rows: Sequence[int]):
        self._examples, self._batch_size, self._rows = examples, batch_size, tuple(rows)

    def __len__(self) -> int:
        return len(self._examples) // self._batch_size * len(self._rows)

    def __getitem__(self, index: int):
        batch, i = divmod(index, len(self._rows))
        return self._examples[batch * self._batch_size + self._rows[i]]


def _batched(examples: grain.MapDataset, batch_size: int, rows: Sequence[int] | None) -> grain.MapDataset:
    """Joins endless examples to batches, or to the given rows of them."""
    if rows is None or len(rows) == batch_size:
        return examples.batch(batch_size)
    return grain.MapDataset.source(_Rows(examples, batch_size, rows)).batch(len(rows))


def _in_random_order(source: Sequence, seed: int) -> grain.MapDataset:
    """Repeats a source without end, shuffled anew each round; every record comes equally often."""
    rounds = grain.MapDataset.source(source).repeat(-(-_SHUFFLED // len(source)))
    return rounds.seed(seed % 2**32).shuffle().repeat()


def _start(batches: grain.MapDataset, workers: int) -> Iterator[dict[str, np.ndarray]]:
    """Reads batches ahead in `workers` processes, or in a thread."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads its own flags, at their defaults where absl does not run the program
    batches = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_BUFFER))
    if workers:
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
        start_quiet_tracker()
        batches = batches.mp_prefetch(options, worker_init_fn=follow_parent)
    return iter(batches)


def _make_transform(config: Mapping[str, Any]) -> Callable:
    """Returns (image, rng) -> one training example. Raises: UserError if a field is wrong."""
    _check(config)
    return partial(example, **{field: config[field] for field in _EXAMPLE_FIELDS}, shrink=make_shrink(config))


def val_batch(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Cuts the config.val_num fixed crops that validation uses, always the same; config is config.data.

    They are spread over the held-out images, and over positions where an image gives several (its first is central).

    Returns: one batch like `train_batches`', of `transforms.val_example`s.
    Raises: UserError if a field or the source is wrong.
    """
    _check(config)
    fields = {field: config[field] for field in _VAL_FIELDS} | {"shrink": make_shrink(config)}
    source, num, examples = _val_source(config), config["val_num"], []
    for i in range(num):
        index, turn = (i % len(source), i // len(source)) if num > len(source) else (i * len(source) // num, 0)
        examples.append(val_example(source[index], _spread(turn), np.random.default_rng(i), **fields))
    return {key: np.stack([one[key] for one in examples]) for key in examples[0]}


def _spread(n: int) -> tuple[float, float]:
    """Returns point n of an even sequence over [0, 1)^2 (steps from the plastic number) that begins at the centre."""
    plastic = 1.3247179572447460
    return (0.5 + n / plastic) % 1.0, (0.5 + n / plastic**2) % 1.0


def train_source(config: Mapping[str, Any], cache_bytes: int) -> Source:
    """Opens the training images of config.data, less what is held out; cache_bytes as of `sources.make_source`.

    Raises: UserError if a field or the source is wrong.
    """
    own = config["source"] != "embedded" and config["val_source"]  # nothing has to be held out of it
    if own and (config["val_source"], config["val_root"]) == (config["source"], config["root"]):
        logger.warning("data.val_root is data.root: validation uses images that are trained on.")
    options = {field: config[field] for field in _SOURCE_FIELDS}
    if own:
        options["val_split_file"] = ""  # it is of val_root
    return make_source(config["source"], config["root"], "all" if own else "train", cache_bytes, **options)


def _cache_bytes(config: Mapping[str, Any]) -> int:
    """Returns the memory for decoded images of one loader process."""
    return int(config["cache_gib"] * 2**30) // max(1, config["workers"])


def _val_source(config: Mapping[str, Any]) -> Source:
    options = {field: config[field] for field in _SOURCE_FIELDS}
    kind = config["val_source"]
    if not kind:
        return make_source(config["source"], config["root"], "val", **options)
    options |= {"split_file": config["val_split_file"], "val_split_file": ""}
    return make_source(kind, config["val_root"], "all" if kind == "folder" else "val", **options)


def _check(config: Mapping[str, Any]) -> None:
    """Raises UserError for the first field of config.data that makes no sense."""
    size, lr, patch = config["image_size"], config["lr_size"], config["target_patch"]
    low, high = config["target_min"], config["target_max"]
    for field in ("source", "val_source"):
        if config[field] not in SOURCES and (field, config[field]) != ("val_source", ""):
            raise UserError(f"Unknown data.{field}={config[field]}; known are {', '.join(SOURCES)}.")
    for field, least in dict(image_size=1, lr_size=0, target_patch=1, val_num=1, workers=0, cache_gib=0).items():
        if config[field] < least:
            raise UserError(f"data.{field} must be at least {least}, got {config[field]}.")
    if lr > size:
        raise UserError(f"data.lr_size must be at most data.image_size={size}, got {lr}.")
    if not patch <= low <= high:
        raise UserError(
            f"data.target_patch <= data.target_min <= data.target_max must hold, got {patch}, {low}, {high}; lower the "
            "first or raise the others."
        )
    if not 0 <= config["recolor"] <= 1:
        raise UserError(f"data.recolor is a probability, got {config['recolor']}.")
    if not 0 < config["min_crop"] <= 1:
        raise UserError(f"data.min_crop must lie in (0, 1], got {config['min_crop']}.")
