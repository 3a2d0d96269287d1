"""Lets several windows of a picture share the statistics of group normalisation, as if they were one array.

A norm's moments are gathered in each window over the cells that no other window counts, and combined (Chan et al.
1979). Given to the networks afterwards, they take the place of the moments of the window itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from flax import linen as nn

from .layers import GroupNorm, Moments, group_moments
from .masks import resize_mask

STATISTICS = ("whole", "window")  # of the whole picture, for which each window is computed twice; or of each by itself
Statistics = Mapping[str, Moments]  # of each norm, by its path in the network


@contextmanager
def shared_moments(given: Statistics | None = None, counted=None) -> Iterator[dict[str, Moments]]:
    """Makes norms that are applied inside the block use or gather moments.

    Networks that recompute activations (`remat`) cannot be applied inside the block.

    Args:
      given: the moments that norms use; a norm that is not named uses those of its input.
      counted: [b h w], true for the cells over which the moments of norms that are not named are gathered, at a
        resolution from which that of each layer differs by a whole factor; None means that nothing is gathered.

    Yields:
      The gathered moments by the norms' paths, which fills while networks are applied.
    """
    found: dict[str, Moments] = {}

    def intercept(call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, GroupNorm):
            return call(*args, **kwargs)
        name = "/".join(module.path)
        if given is not None and name in given:
            kwargs = {**kwargs, "moments": given[name]}
        elif counted is not None:
            found[name] = group_moments(args[0], module.num_groups, resize_mask(counted, *args[0].shape[1:3]))
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield found


def combine(parts: Sequence[Statistics]) -> dict[str, Moments]:
    """Returns the moments of the union of disjoint sets of cells, whose moments are given, on the host."""

    def merge(moments: Sequence[Moments]) -> Moments:
        means, variances, counts = (np.stack(values) for values in zip(*moments, strict=True))
        shares = (counts / counts.sum(0))[..., None]
        mean = (shares * means).sum(0)
        return Moments(mean, (shares * (variances + np.square(means - mean))).sum(0), counts.sum(0))

    return {name: merge([part[name] for part in parts]) for name in parts[0]}
