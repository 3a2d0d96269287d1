"""Runs a sampler in parts, after each of which a caller is told and may stop."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

AT_ONCE = {"cpu": 1}  # steps in one program, by the kind of device; elsewhere all of a sampling

Advance = Callable[[int], object]  # is told how many parts of the work were done since the last call


def run_in_parts(run: Callable, carry: tuple, constants: Sequence[np.ndarray], advance: Advance | None = None) -> tuple:
    """Does the steps of a sampler; on a CPU the programs do not depend on their number.

    Args:
      run: a compiled function (carry, constants of some steps) -> carry, such as a scan of `make_step`.
      carry: the first carry (`begin`).
      constants: what the steps are told, arrays [S] on the host (`make_constants`).
      advance: a function that is told of steps; it may raise an exception to stop. None means nobody.

    Returns:
      The last carry.
    """
    count = len(constants[0])
    num = AT_ONCE.get(jax.default_backend(), count)
    for first in range(0, count, num):
        some = tuple(x[first : first + num] for x in constants)
        carry = run(carry, some)
        if advance:
            jax.block_until_ready(carry)
            advance(len(some[0]))
    return carry
