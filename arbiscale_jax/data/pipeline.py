"""Makes batches of training and validation examples from the images of a source, with grain."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

from arbiscale_jax.artifacts.vocabulary import Vocabulary
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import word_seed

from .config_sources import cache_bytes, check, lr_root_of, train_source, val_source
from .degradations import make_shrink
from .lr_pairs import PicturePair
from .name_labels import LabelledSource, labelled_example, labels_of
from .paired_examples import paired_example, paired_val_example
from .processes import follow_parent, start_quiet_tracker
from .transforms import ExampleSpec, example, val_example

_BUFFER = 4  # batches that are prepared ahead of the training
_SHUFFLED = 2048  # least number of records shuffled together; with n records grain spends 30 ms / n on each
_ENDLESS = 2**62  # records that stand for a stream without end, whose length overflows in batches of one record
_LATER_FIELDS = ("min_side", "lr_root")  # fields that older stores of latents do not know
_SOURCE_FIELDS = ("image_size", "split_file", "val_split_file", "tfds_dir", "image_feature")


class Batches(Iterator[dict[str, np.ndarray]], Protocol):
    """Iterates over batches, each {name: array}, which are prepared ahead until `close` is called."""

    def close(self) -> None:
        """Stops preparing batches and ends the loader's processes."""


def train_batches(
    config: Mapping[str, Any],
    seed: int,
    batch_size: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    vocabulary: Vocabulary | None = None,
) -> Batches:
    """Iterates without end over the batches start_step, start_step + 1, ...; batch k is a function of (seed, k) alone.

    Every image comes equally often, in an order that is drawn anew for each round through the images. config.workers
    processes (0: one thread) prepare batches ahead, and they end when this process ends. A script that uses processes
    needs the `if __name__ == "__main__"` guard.

    Args:
      config: config.data of an experiment.
      seed: a whole number >= 0.
      batch_size: examples per batch, over all devices together.
      start_step: number of the first batch.
      rows: rows of each batch that are wanted; nothing else is read. None is all.
      vocabulary: what labels say; None makes examples without labels.

    Returns:
      An iterator over the arrays of `transforms.example` with a leading batch axis, and with a vocabulary also label,
      int32 [b 1 + n], of the picture's name; its close() ends the loader.

    Raises:
      UserError: if a field or the source is wrong.
    """
    transform = _make_transform(config)
    if batch_size < 1 or start_step < 0:
        raise UserError(f"Batch size >= 1 and first step >= 0 must hold, got {batch_size} and {start_step}.")
    source, transform = _labelled(train_source(config, cache_bytes(config)), transform, vocabulary)
    examples = _in_random_order(source, seed).random_map(transform)
    return _start(_batched(examples, batch_size, rows)[start_step:], config["workers"])


def views(
    config: Mapping[str, Any], seed: int, num: int, vocabulary: Vocabulary | None = None
) -> tuple[grain.MapDataset, dict[str, Any]]:
    """Draws `num` examples, called views, of every training image; example i is a function of (seed, i) alone.

    Args:
      config: config.data of an experiment.
      seed: a whole number >= 0.
      num: views per image.
      vocabulary: as in `train_batches`.

    Returns:
      The examples, where number v * (number of images) + i is view v of image i, and their identity as values that JSON
      can represent: every field that they depend on, the names of the images, the sizes and times of their files, the
      seed and the number of views.

    Raises:
      UserError: if a field or the source is wrong.
    """
    transform = _make_transform(config)
    source = train_source(config, cache_bytes(config))
    fields = (*ExampleSpec._fields, *_SOURCE_FIELDS, "source", "root", "degradation", "lr_scale_min", "lr_scale_max")
    fields += tuple(field for field in _LATER_FIELDS if config[field])
    identity = {field: config[field] for field in fields} | {"real": dict(config["real"]), "seed": seed, "views": num}
    identity["images"] = [source.name(i) for i in range(len(source))]
    identity["files"] = source.stamps()
    if vocabulary:
        identity["labels"] = [vocabulary.styles, vocabulary.words, vocabulary.most_words]
    pictures, transform = _labelled(source, transform, vocabulary)
    return grain.MapDataset.source(pictures).repeat(num).seed(word_seed(seed)).random_map(transform), identity


def view_batches(examples: grain.MapDataset, batch_size: int, start: int, workers: int) -> Batches:
    """Iterates over batches of `views` in order, from example `start` to the end; the last batch may be smaller."""
    return _start(examples[start:].batch(batch_size, drop_remainder=False), workers)


def shuffled_batches(
    source: grain.sources.RandomAccessDataSource[Mapping[str, np.ndarray]],
    seed: int,
    batch_size: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
) -> Batches:
    """Iterates without end over stored examples, shuffled anew each round; batch k is a function of (seed, k) alone."""
    return _start(_batched(_in_random_order(source, seed), batch_size, rows)[start_step:], workers=0)


class _Rows:
    """Picks the examples that are in some rows of every batch of `batch_size` examples, in order."""

    def __init__(self, examples: grain.MapDataset, batch_size: int, rows: Sequence[int]):
        self._examples, self._batch_size, self._rows = examples, batch_size, tuple(rows)

    def __len__(self) -> int:
        return len(self._examples) // self._batch_size * len(self._rows)

    def __getitem__(self, index: int):
        batch, i = divmod(index, len(self._rows))
        return self._examples[batch * self._batch_size + self._rows[i]]


def _batched(examples: grain.MapDataset, batch_size: int, rows: Sequence[int] | None) -> grain.MapDataset:
    """Joins endless examples into batches, or into the given rows of those batches."""
    if rows is None or len(rows) == batch_size:
        return examples.batch(batch_size)
    return grain.MapDataset.source(_Rows(examples, batch_size, rows)).batch(len(rows))


def _in_random_order(source: grain.sources.RandomAccessDataSource, seed: int) -> grain.MapDataset:
    """Repeats a source without end and shuffles it anew each round; every record comes equally often."""
    rounds = grain.MapDataset.source(source).repeat(-(-_SHUFFLED // len(source)))
    return rounds.seed(word_seed(seed)).shuffle().repeat(_ENDLESS // len(rounds))


def _start(batches: grain.MapDataset, workers: int) -> Batches:
    """Starts preparing batches ahead in `workers` processes, or in one thread if there are none."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads its flags, which are not parsed where absl does not run the program
    loader = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_BUFFER))
    if workers:
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
        start_quiet_tracker()
        loader = loader.mp_prefetch(options, worker_init_fn=follow_parent)
    return iter(loader)


def _make_transform(config: Mapping[str, Any]) -> Callable:
    """Returns a function (image, rng) -> one training example, or raises UserError if a field is wrong."""
    check(config)
    if lr_root_of(config):
        return partial(paired_example, spec=_example_spec(config))
    return partial(example, spec=_example_spec(config), shrink=make_shrink(config))


def _labelled(source, transform: Callable, vocabulary: Vocabulary | None) -> tuple[Any, Callable]:
    """Returns the pictures and what makes examples of them, with labels if there is a vocabulary."""
    if vocabulary is None:
        return source, transform
    return LabelledSource(source, vocabulary), partial(labelled_example, transform=transform)


def _example_spec(config: Mapping[str, Any]) -> ExampleSpec:
    """Returns the fields of config.data that say how examples are cut."""
    return ExampleSpec(**{field: config[field] for field in ExampleSpec._fields})


def val_batch(config: Mapping[str, Any], vocabulary: Vocabulary | None = None) -> dict[str, np.ndarray]:
    """Cuts the crops that validation uses; they are always the same.

    The config.val_num crops are spread over the held-out images. If an image gives several, they are spread over
    positions, and the first is in the middle.

    Args:
      config: config.data of an experiment.
      vocabulary: as in `train_batches`.

    Returns:
      One batch of `transforms.val_example`, with the same arrays as the batches of `train_batches`.

    Raises:
      UserError: if a field or the source is wrong.
    """
    check(config)
    spec, shrink = _example_spec(config), make_shrink(config)
    source, num, examples, numbers = val_source(config), config["val_num"], [], []
    for i in range(num):
        index, turn = (i % len(source), i // len(source)) if num > len(source) else (i * len(source) // num, 0)
        number, image = source.readable(index)
        numbers.append(number)
        if isinstance(image, PicturePair):
            examples.append(paired_val_example(image, _spread(turn), spec))
        else:
            examples.append(val_example(image, _spread(turn), np.random.default_rng(i), spec, shrink))
    batch = {key: np.stack([one[key] for one in examples]) for key in examples[0]}
    if vocabulary:
        titles = source.titles()
        batch["label"] = labels_of([titles[number] for number in numbers], vocabulary)
    return batch


def _spread(n: int) -> tuple[float, float]:
    """Returns point n of a sequence that fills [0, 1)^2 evenly from the middle on; its steps use the plastic number."""
    plastic = 1.3247179572447460
    return (0.5 + n / plastic) % 1.0, (0.5 + n / plastic**2) % 1.0
