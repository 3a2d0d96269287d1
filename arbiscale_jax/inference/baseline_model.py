"""Defines Baseline, a model of one of the methods with which the paper compares; it upscales as Model does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from arbiscale_jax import baselines
from arbiscale_jax.errors import UserError
from arbiscale_jax.images.kinds import to_picture
from arbiscale_jax.runtime.random import seed_key, whole_seed

from . import channels
from .checks import check_box, check_memory, check_size, whole
from .enlargers import Noise, make_enlarger
from .options import UpscaleOptions, check_names
from .results import upscale_whole
from .sheets import counting, to_floats
from .tiles import View, to_integers


class BaselineSampling(NamedTuple):
    """Holds the options that count for a method that samples."""

    steps: int  # evaluations of the network
    eta: float  # amount of noise in each step


def resolve_baseline(fields: Mapping, given: Mapping) -> BaselineSampling | None:
    """Returns the options that count, those given or the method's own; None for a method that does not sample.

    Args:
      fields: the part `model.baseline` of a configuration.
      given: options of UpscaleOptions by name; None counts as absent.

    Raises:
      UserError: if the method has no such option, or it is out of range.
    """
    method, known = fields["method"], ("steps", "eta") if fields["method"] in baselines.DIFFUSION else ()
    for name in UpscaleOptions.__annotations__:
        if name not in (*known, "seed", "progress") and given.get(name) is not None:
            raise UserError(f"The method {method} has no option {name}; leave it out.")
    if not known:
        return None
    values = {name: fields[name] if given.get(name) is None else given[name] for name in known}
    steps, eta = whole(values["steps"], "steps", 1), float(values["eta"])
    if steps > fields["timesteps"]:
        raise UserError(f"steps is at most {fields['timesteps']}, the times of this model, got {steps}.")
    if not 0 <= eta <= 1:
        raise UserError(f"eta lies in [0, 1], got {eta}.")
    return BaselineSampling(steps, eta)


class Baseline:
    """Upscales photographs with LIIF, SR3, IDM or ESRGAN; everything is computed in float32.

    A picture is computed as a whole. SR3 and ESRGAN have one scale, from whose result others are resized.

    Args:
      config: the `model` part of a configuration, {"baseline": ...}.
      params: {"baseline": weights}.
      dtype: float32, or another type that is not taken notice of.
      name: the name that `repr` shows.
    """

    def __init__(self, config: Mapping, params: Mapping, dtype: DTypeLike = jnp.float32, name: str = ""):
        self.name, self.config, self.dtype = name, config, jnp.dtype(jnp.float32)
        self.params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), dict(params))
        self.fields = config["baseline"]

    def __repr__(self) -> str:
        """Describes the model in one line."""
        count = sum(x.size for x in jax.tree.leaves(self.params))
        return f"<Baseline {self.name or 'without a name'}: {self.fields['method']}, {count:,} parameters>"

    @cached_property
    def _enlarge(self) -> Callable:
        return make_enlarger(self.fields)

    def upscale(
        self,
        image: Any,
        scale: float | None = None,
        *,
        size: Sequence[int] | None = None,
        samples: int | None = None,
        **sampling: Any,
    ) -> Any:
        """Upscales a picture of any kind; arguments, result and errors are those of `Model.upscale`.

        Of the options seed and progress count, and for SR3 and IDM also steps and eta.
        """
        return upscale_whole(self.upscale_each, image, scale, size, samples, sampling)

    def upscale_each(
        self,
        images: Sequence[Any],
        sizes: Sequence[Sequence[int]],
        samples: int = 1,
        *,
        box: Sequence[int] | None = None,
        **sampling: Any,
    ) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
        """Upscales pictures one by one; arguments and what it yields are those of `Model.upscale_each`."""
        check_names(sampling, UpscaleOptions)
        options, seed = resolve_baseline(self.fields, sampling), whole_seed(sampling.get("seed", 0))
        samples = whole(samples, "samples", 1)
        total = samples * len(images) * (options.steps if options else 1)
        advance = counting(sampling.get("progress"), total)
        for number, (image, size) in enumerate(zip(images, sizes, strict=True)):
            layers, size = channels.split(to_picture(image).pixels), check_size(size)
            check_memory((*size, 3), np.float32)
            view = View(size, check_box(box, size), layers.colours.dtype.name)
            top, left, height, width = view.box
            for i in range(samples):
                noise = Noise(jax.random.fold_in(seed_key(seed), i), *(options or (1, 0.0)), advance)
                x = self._enlarge(self.params["baseline"], to_floats(layers.colours), size, noise)
                rows = to_integers(x[top : top + height, left : left + width], view.dtype)
                if options is None:
                    advance(1)
                yield number, i, channels.join(layers, iter([rows]), view)
