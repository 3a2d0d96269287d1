"""Takes labels from the names of pictures: their style and their words.

The name of a picture is STYLE__WORDS, as in noto__black-cat.png, or the style is the name of its folder, as in
noto/black-cat.png. Words are parted by anything but letters and digits; numbers alone are no words.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from arbiscale_jax.artifacts.vocabulary import Vocabulary, split_words, write_prompt
from arbiscale_jax.errors import UserError

from .source import Source

WAYS = ("", "names")  # values of data.labels
MOST_STYLES = 256  # the most frequent ones count
MOST_WORDS = 8  # of one picture
EXAMPLES = 256  # labels of training pictures that a vocabulary keeps


class Name(NamedTuple):
    """Holds what the name of a picture says."""

    style: str  # in lower case, "" if there is none
    words: tuple[str, ...]  # in lower case, each once


def parse_name(name: str) -> Name:
    """Returns the style and the words of a picture's name, a path below its folder with forward slashes."""
    folder, _, file = name.rpartition("/")
    stem = os.path.splitext(file)[0]
    style, parted, rest = stem.partition("__")
    if not parted:
        style, rest = folder.rpartition("/")[2], stem
    style = re.sub(r"\s+", "-", style.strip().lower())
    return Name(style, tuple(dict.fromkeys(split_words(rest))))


def make_vocabulary(source: Source, most: int) -> Vocabulary:
    """Collects the styles and the words of the training pictures' names.

    Words are those that come most often, and of words that come equally often the first ones in the alphabet; the
    vocabulary lists them in the order of the alphabet. Its examples are the labels of a fixed random choice of
    pictures.

    Args:
      source: the training pictures.
      most: the largest number of words.

    Returns:
      The vocabulary.

    Raises:
      UserError: if `most` is below 0, the pictures have no names, or their names have neither a style nor a word.
    """
    if most < 0:
        raise UserError(f"data.label_words must be at least 0, got {most}.")
    names = [parse_name(name) for name in source.titles()]
    styles = Counter(one.style for one in names if one.style)
    words = Counter(word for one in names for word in one.words)
    kept = tuple(sorted(_most_frequent(words, most)))
    counts = [sum(word in words for word in one.words) for one in names]
    made = Vocabulary(
        tuple(sorted(_most_frequent(styles, MOST_STYLES))), kept, min(MOST_WORDS, max(counts, default=0)) if kept else 0
    )
    if not (made.styles or made.words):
        raise UserError(
            f"data.labels=names finds neither styles nor words in the names of the {len(source)} training pictures; "
            "name them STYLE__WORDS, or unset data.labels."
        )
    known, order = set(kept), np.random.default_rng(0).permutation(len(names))[:EXAMPLES]
    shown = (names[int(i)] for i in order)
    prompts = [
        write_prompt(
            one.style if one.style in made.styles else "",
            [word for word in one.words if word in known][: made.most_words],
        )
        for one in shown
    ]
    return made._replace(examples=tuple(prompt for prompt in prompts if prompt))


def _most_frequent(counts: Counter, most: int) -> list[str]:
    return sorted(counts, key=lambda text: (-counts[text], text))[:most]


class Labelled(NamedTuple):
    """Holds a picture and its label."""

    image: Any  # uint8 [h, w, 3]
    label: np.ndarray  # int32 [1 + n]


class LabelledSource:
    """Returns pictures of a source with the labels of their names; it can be sent to worker processes."""

    def __init__(self, source: Source, vocabulary: Vocabulary):
        self._source = source
        self._labels = labels_of(source.titles(), vocabulary)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Labelled:
        """Returns a picture, or the next readable one, with its own label."""
        number, image = self._source.readable(index)
        return Labelled(image, self._labels[number])

    def __repr__(self) -> str:
        return f"LabelledSource({self._source!r})"


def labelled_example(one: Labelled, rng: np.random.Generator, transform: Callable) -> dict[str, np.ndarray]:
    """Makes an example of a labelled picture: that of transform(image, rng), and its label."""
    return {**transform(one.image, rng), "label": one.label}


def labels_of(names: Sequence[str], vocabulary: Vocabulary) -> np.ndarray:
    """Returns the labels of pictures of these names, int32 [len(names), 1 + n]."""
    return np.stack([vocabulary.encode(*parse_name(name)) for name in names])
