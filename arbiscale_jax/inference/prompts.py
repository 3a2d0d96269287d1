"""Says what a generation asks for, and which label each of its images has."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np

from arbiscale_jax.artifacts.vocabulary import Vocabulary
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import whole_seed

from .checks import check_memory, check_size
from .engine import Engine
from .options import Sampling, resolve

Prompt = str | Sequence[str] | None  # see GenerateOptions.prompt


class Request(NamedTuple):
    """Says what is generated; image i depends on it and on i alone."""

    options: Sampling  # how latents are sampled
    seed: int  # the seed of all noise, and of labels that are drawn
    prompt: Prompt = None  # what is to be seen
    canvas: tuple[int, int] | None = None  # (height, width) of the latents in cells; None means those of training
    coarse: float = 0.0  # share of the times from which an enlarged latent of training goes on; 0 means from noise


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

    The prompt has been checked by `check_prompt`.
    """
    if vocabulary is None:
        return None
    return np.stack([vocabulary.read(prompt_of(vocabulary, request, int(number))) for number in numbers])


def make_request(engine: Engine, sampling: Mapping) -> Request:
    """Returns the request that options of sampling describe (GenerateOptions), after all checks.

    Raises:
      UserError: if an option is out of range, or the model knows nothing of what the prompt says.
    """
    options = resolve(engine.config, {**sampling, "start": 0.0})
    check_prompt(engine.vocabulary, sampling.get("prompt"))
    canvas, coarse = check_canvas(sampling.get("canvas"), engine.networks.factor), sampling.get("coarse") or 0.0
    if not isinstance(coarse, Real) or not 0 <= float(coarse) <= 1:
        raise UserError(f"coarse is a share of the times from 0 to 1, got {coarse!r}.")
    return Request(options, whole_seed(sampling.get("seed", 0)), sampling.get("prompt"), canvas, float(coarse))


def check_canvas(size, factor: int) -> tuple[int, int] | None:
    """Returns a canvas in latent cells.

    Raises:
      UserError: if its sides are no multiples of `factor` pixels, or its picture does not fit in memory.
    """
    if size is None:
        return None
    height, width = check_size(size)
    if height % factor or width % factor:
        raise UserError(f"canvas has sides that are multiples of {factor} pixels, got {height} x {width}.")
    check_memory((height, width, 3), np.float32)
    return height // factor, width // factor
