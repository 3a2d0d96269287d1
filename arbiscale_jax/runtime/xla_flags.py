"""Chooses how XLA computes on a CPU."""

import os

import jax

VERSIONS = ("0.10.",)  # of JAX, for which the choice was measured; an unknown flag would end the process
FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def prefer_eigen() -> None:
    """Makes XLA compute convolutions on a CPU with Eigen and not with YNNPACK, unless XLA_FLAGS decides.

    YNNPACK is the default of JAX 0.10. It takes up to 1.3 times as long for convolutions, and up to 2.5 times as long
    for their gradients (docs/RESULTS.md, "Speed on a CPU"). XLA reads the variable when it compiles its first program,
    so a later call has no effect.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version__.startswith(VERSIONS) and FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=".strip()
