"""What of the time of E, the U-Net and D is convolutions and products: the least that XLA's own kernels allow.

The convolutions and matrix products of a network's program are read from its jaxpr, each shape is timed alone, in XLA
and in PyTorch, and the times are summed over the network. A network cannot be faster than this sum with the kernels
that its library has.

Run: python benchmarks/roofline.py (the paper's faces networks on a CPU, float32; about 3 minutes; needs torch)
     python benchmarks/roofline.py --quick (narrow networks: a rehearsal, whose numbers mean nothing)
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import speed_networks
import speed_peers
import torch
import torch.nn.functional as F
from common import markdown
from jax import lax
from speed_networks import in_turns

from arbiscale_jax.runtime import compile_cache, xla_flags

REPEATS = 5
KINDS = ("conv_general_dilated", "dot_general")


def equations(jaxpr) -> Iterator[Any]:
    """Yields the equations of a jaxpr and of all jaxprs inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "jaxpr"):
                    yield from equations(inner.jaxpr)


def parts(call: speed_networks.Call) -> Counter:
    """Counts a program's convolutions and products: (kind, shapes of both operands, what else counts) -> number."""
    found = Counter()
    program = jax.make_jaxpr(partial(call.run, **call.options))(*call.args)
    for eqn in equations(program.jaxpr):
        if eqn.primitive.name in KINDS:
            shapes = tuple(variable.aval.shape for variable in eqn.invars)
            names = ("window_strides", "padding") if eqn.primitive.name == KINDS[0] else ("dimension_numbers",)
            found[(eqn.primitive.name, shapes, tuple(eqn.params[name] for name in names))] += 1
    return found


def flops(part) -> float:
    """Counts multiplications and additions."""
    kind, (a, b), options = part
    if kind == KINDS[1]:
        contracted = np.prod([a[i] for i in options[0][0][0]])
        batch = np.prod([a[i] for i in options[0][1][0]])
        return float(2 * np.prod(a) * np.prod(b) / contracted / batch)
    strides, padding = options
    out = [(n + sum(pad) - k) // s + 1 for n, pad, k, s in zip(a[1:3], padding, b[:2], strides, strict=True)]
    return float(2 * a[0] * np.prod(out) * np.prod(b))


def calls(part) -> dict[str, Callable]:
    """Returns a call of a convolution or product in each library, on random operands in the layout that it prefers."""
    kind, shapes, options = part
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    if kind == KINDS[1]:
        (contract, batch) = options[0]
        run = jax.jit(lambda x, y: lax.dot_general(x, y, (contract, batch)))
        names = "abcdefghij"
        left = list(names[: a.ndim])
        right = [names[a.ndim + i] for i in range(b.ndim)]
        for i, j in (*zip(*contract, strict=True), *zip(*batch, strict=True)):
            right[j] = left[i]
        summed = {left[i] for i in contract[0]}
        kept = [x for x in dict.fromkeys(left + right) if x not in summed]
        text, ta, tb = f"{''.join(left)},{''.join(right)}->{''.join(kept)}", torch.tensor(a), torch.tensor(b)
        theirs = speed_peers.waiting(lambda: torch.einsum(text, ta, tb), "cpu")
        return {"ours": partial(run, jax.device_put(a), jax.device_put(b)), "theirs": theirs}
    strides, padding = options
    run = jax.jit(
        lambda x, k: lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    )
    x = torch.tensor(a).permute(0, 3, 1, 2).contiguous()
    k = torch.tensor(b).permute(3, 2, 0, 1).contiguous()
    flat = (*padding[1], *padding[0])
    pad = padding[0][0] if len(set(flat)) == 1 else None

    def convolve():
        return F.conv2d(x, k, None, strides, pad) if pad is not None else F.conv2d(F.pad(x, flat), k, None, strides)

    return {
        "ours": partial(run, jax.device_put(a), jax.device_put(b)),
        "theirs": speed_peers.waiting(convolve, "cpu"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    compile_cache.enable()
    xla_flags.prefer_eigen()
    speed_peers.prepare_torch(os.cpu_count() or 1, gpu=False)
    model = speed_networks.faces_model(quick, "float32")
    x = speed_networks.make_inputs(model, 1)
    networks = speed_networks.part_calls(model, 1)
    theirs = speed_peers.reference_calls(speed_networks.faces_arch(quick), "cpu", (x.z, x.t), (64, 64))
    known: dict = {}
    rows = []
    for name in ("E", "U-Net, one evaluation", "D"):
        found = parts(networks[name])
        for part in found:
            if part not in known:
                known[part] = in_turns(calls(part), REPEATS)
        whole = in_turns({"ours": networks[name], "theirs": theirs[name]}, REPEATS)
        sums = {who: sum(count * known[part][who] for part, count in found.items()) for who in whole}
        count = sum(number * flops(part) for part, number in found.items())
        row = [name, f"{count / 1e9:.0f}"]
        for who in ("ours", "theirs"):
            row += [f"{whole[who]:.3f}", f"{sums[who]:.3f}", f"{count / sums[who] / 1e9:.0f}"]
        ratios = (whole["ours"] / whole["theirs"], sums["ours"] / sums["theirs"], whole["ours"] / sums["ours"])
        rows.append([*row, *(f"{ratio:.2f}" for ratio in ratios)])
    print(f"{speed_networks.machine()}, JAX {jax.__version__}, PyTorch {torch.__version__}, medians of {REPEATS}")
    head = ["network", "GFLOP"]
    for who in ("ours", "PyTorch"):
        head += [f"{who}: whole s", "its kernels s", "their GFLOP/s"]
    print(markdown([*head, "whole: ours / PyTorch", "kernels: ours / PyTorch", "ours: whole / kernels"], rows))


if __name__ == "__main__":
    main()
