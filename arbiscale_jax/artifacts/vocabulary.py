"""Holds what a model knows of the names of pictures, and turns names and prompts into numbers for its U-Net.

A label is an int32 array [1 + n]: the number of a style, then those of up to n words. Numbers count from 1; 0 stands
for nothing. A prompt is a text such as `style=noto black cat`.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from arbiscale_jax.errors import UserError

_STYLE = re.compile(r"style\s*=\s*(\S+)", re.IGNORECASE)
_SHOWN = 3  # number of near words that an error names


class Vocabulary(NamedTuple):
    """Lists the styles and words that a model knows."""

    styles: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    most_words: int = 0  # number of words that a label may have
    examples: tuple[str, ...] = ()  # prompts that describe some of the training pictures

    def encode(self, style: str, words: Iterable[str]) -> np.ndarray:
        """Returns the label of a picture, int32 [1 + n]; what the vocabulary lacks, and words beyond n, are left out.

        Args:
          style: the style, or "".
          words: the words.
        """
        label = np.zeros(1 + self.slots, np.int32)
        label[0] = self.styles.index(style) + 1 if style in self.styles else 0
        known = [self.words.index(word) + 1 for word in dict.fromkeys(words) if word in self.words]
        label[1 : 1 + len(known[: self.slots])] = known[: self.slots]
        return label

    def read(self, prompt: str) -> np.ndarray:
        """Returns the label of a prompt, int32 [1 + n].

        Args:
          prompt: `style=NAME` and words, of which either may be missing; an empty prompt is the label of nothing.

        Raises:
          UserError: if the prompt is no text, names something unknown, or has too many words.
        """
        if not isinstance(prompt, str):
            raise UserError(f"A prompt is a text such as 'style=NAME word word', got {prompt!r}.")
        named, words = _STYLE.findall(prompt.lower()), split_words(_STYLE.sub(" ", prompt))
        if len(named) > 1:
            raise UserError(f"The prompt {prompt!r} names {len(named)} styles; give one.")
        style = named[0] if named else ""
        if style and style not in self.styles:
            raise UserError(f"This model knows no style {style!r}{_near(style, self.styles)}.")
        for word in words:
            if word not in self.words:
                hint = f"; a style is written style={word}" if word in self.styles else _near(word, self.words)
                raise UserError(f"This model knows no word {word!r}{hint}.")
        words = list(dict.fromkeys(words))
        if len(words) > self.most_words:
            raise UserError(f"The prompt {prompt!r} has {len(words)} words, and this model takes {self.most_words}.")
        return self.encode(style, words)

    @property
    def slots(self) -> int:
        """Returns n, the number of words for which a label has room, which is 1 at least."""
        return max(1, self.most_words)


def vocabulary_of(model: Mapping) -> Vocabulary | None:
    """Returns what a model knows of names, or None if it knows nothing.

    Args:
      model: the `model` part of a configuration, complete.
    """
    labels = model["unet"]["labels"]
    if not labels["styles"] and not labels["words"]:
        return None
    styles, words, examples = (tuple(labels[name]) for name in ("styles", "words", "examples"))
    return Vocabulary(styles, words, labels["most_words"], examples)


def split_words(text: str) -> list[str]:
    """Returns the words of a text in lower case: runs of letters and digits, without numbers alone."""
    return [word for word in re.findall(r"[^\W_]+", text.lower()) if not word.isdigit()]


def write_prompt(style: str, words: Sequence[str]) -> str:
    """Returns the prompt of a style and words, of which either may be missing."""
    return " ".join([*([f"style={style}"] if style else []), *words])


def _near(text: str, known: Sequence[str]) -> str:
    """Returns the end of a message about an unknown text: the known ones that are most like it."""
    if not known:
        return "; it knows none"
    found = difflib.get_close_matches(text, known, n=_SHOWN, cutoff=0.5)
    return f"; near are {', '.join(found)}" if found else f"; it knows others, such as {', '.join(known[:_SHOWN])}"
