"""Says what a generation asks for, and which label each of its images has."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from arbiscale_jax.artifacts.vocabulary import Vocabulary
from arbiscale_jax.errors import UserError

from .options import Sampling

Prompt = str | Sequence[str] | None  # see GenerateOptions.prompt


class Request(NamedTuple):
    """Says what is generated; image i depends on it and on i alone."""

    options: Sampling  # how latents are sampled
    seed: int  # the seed of all noise, and of labels that are drawn
    prompt: Prompt = None  # what is to be seen


def check_prompt(vocabulary: Vocabulary | None, prompt: Prompt) -> None:
    """Raises UserError unless a model can follow a prompt.

    Args:
      vocabulary: what the model knows, or None if it knows no labels.
      prompt: a text, a sequence of at least one text, or None.
    """
    if prompt is None:
        return
    if vocabulary is None:
        raise UserError("This model knows no labels; leave prompt and guidance out.")
    if not isinstance(prompt, str | Sequence) or not len(prompt) and not isinstance(prompt, str):
        raise UserError(f"A prompt is a text such as 'style=NAME word word', or several of them, got {prompt!r}.")
    for text in [prompt] if isinstance(prompt, str) else prompt:
        vocabulary.read(text)


def prompt_of(vocabulary: Vocabulary, request: Request, number: int) -> str:
    """Returns the prompt of image `number`.

    Several prompts take turns. Without a prompt the label of a training picture is drawn by (seed, number), so that
    generated pictures have labels as often as training pictures have.
    """
    if isinstance(request.prompt, str):
        return request.prompt
    if request.prompt is not None:
        return request.prompt[number % len(request.prompt)]
    if not vocabulary.examples:
        return ""
    rng = np.random.default_rng([request.seed, number])
    return vocabulary.examples[int(rng.integers(len(vocabulary.examples)))]


def labels_for(vocabulary: Vocabulary | None, request: Request, numbers: Sequence[int] | np.ndarray):
    """Returns the labels of images of these numbers, int32 [n, 1 + m], or None for a model that knows none.

    Raises:
      UserError: if the prompt names something unknown, or the model knows no labels.
    """
    check_prompt(vocabulary, request.prompt)
    if vocabulary is None:
        return None
    return np.stack([vocabulary.read(prompt_of(vocabulary, request, int(number))) for number in numbers])
