"""Measures convolutions and their gradients on a CPU, as XLA computes them by default and as arbiscale_jax asks for.

Shapes are those of the restoring model's U-Net and of VGG-16 in its training. Each choice runs in a process of its own,
since XLA reads XLA_FLAGS once, in the order A, B, A, B; the figure is the better one of each choice.

Run: python benchmarks/cpu_convolutions.py
"""

import json
import os
import subprocess
import sys
import time

from common import markdown

from arbiscale_jax.runtime.xla_flags import FLAG

SHAPES = (  # b, side, channels, output channels
    *((4, 32, 128, 128), (4, 16, 160, 160), (4, 8, 224, 224)),
    *((4, 88, 64, 64), (4, 44, 128, 128), (4, 22, 256, 256), (4, 11, 512, 512)),
)
CHOICES = {"YNNPACK": "", "Eigen": f"{FLAG}="}
REPEATS = 8


def measure() -> list[list[float]]:
    """Returns GFLOP/s of the convolution, of the gradient of its input, and of both gradients, for each shape."""
    import jax
    from jax import lax

    def conv(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def of_input(x, kernel, g):
        return jax.vjp(lambda x: conv(x, kernel), x)[1](g)

    def of_both(x, kernel, g):
        return jax.vjp(conv, x, kernel)[1](g)

    def best(function, *args) -> float:
        run = jax.jit(function).lower(*args).compile()
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            jax.block_until_ready(run(*args))
            times.append(time.perf_counter() - began)
        return min(times)

    rows = []
    for b, side, c, features in SHAPES:
        x, kernel, g = (
            jax.random.normal(jax.random.key(i), shape)
            for i, shape in enumerate(((b, side, side, c), (3, 3, c, features), (b, side, side, features)))
        )
        work = 2e-9 * b * side * side * 9 * c * features
        seconds = best(conv, x, kernel), best(of_input, x, kernel, g), best(of_both, x, kernel, g)
        rows.append([times * work / s for times, s in zip((1, 1, 2), seconds, strict=True)])
    return rows


def main() -> None:
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
        return
    found = {name: [[0.0] * 3 for _ in SHAPES] for name in CHOICES}
    for name, flags in [*CHOICES.items()] * 2:
        command, env = [sys.executable, __file__, "--measure"], os.environ | {"XLA_FLAGS": flags}
        out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        both = zip(found[name], json.loads(out.splitlines()[-1]), strict=True)
        found[name] = [[max(*pair) for pair in zip(*rows, strict=True)] for rows in both]
    header = ["b, side, channels", *(f"{name}: {what}" for what in ("forward", "input", "both") for name in CHOICES)]
    rows = []
    for i, (b, side, c, features) in enumerate(SHAPES):
        figures = [f"{found[name][i][k]:.0f}" for k in range(3) for name in CHOICES]
        rows.append([f"{b}, {side}, {c} to {features}", *figures])
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
