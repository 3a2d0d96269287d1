"""Measures the speed of sampling and rendering: seconds, frames per second, megapixels per minute, shares of a peak.

Parts: a, the paper's Table 5 (super-resolution of faces, 16 x 16 pixels, random weights); b, the bundled models; c,
ours beside PyTorch, in float32; d, E, the U-Net, D and f_theta of the faces model: FLOP, FLOP/s, the share of the peak.
Every time is the median of some runs after one that compiles. Ratios are within one run, A/B/A/B.

Run: python benchmarks/speed.py [--only a,b] [--dtype bfloat16] [--batch 1,16,64] [--megapixel] [--output FILE]
     python benchmarks/speed.py --only c --peer MODELS (the folder of realesrgan-x4plus.param and .bin)
     python benchmarks/speed.py --quick (narrow networks and small sizes: a rehearsal, whose numbers mean nothing)
"""

import argparse
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import speed_networks
from speed_networks import DTYPES, LR, in_turns, seconds
from speed_report import Report

import arbiscale_jax as aj
from arbiscale_jax.artifacts import storage
from arbiscale_jax.cli import program
from arbiscale_jax.inference import Model, batch
from arbiscale_jax.inference.networks import Given
from arbiscale_jax.inference.options import resolve
from arbiscale_jax.inference.reverse_process import denoise
from arbiscale_jax.runtime import compile_cache, xla_flags

PAPER_FPS = {8.0: 0.2568, 12.0: 0.2510, 30.0: 0.2473, 100.0: 0.1833, 200.0: 0.0982}  # its Table 5, on an RTX 4090
RENDERED = 512  # pixels a side, in c and d


def table5(report: Report, args) -> None:
    """Part a."""
    model = speed_networks.faces_model(args.quick, args.dtype)
    report.begin(
        f"**a. The paper's Table 5**: faces, {LR} x {LR} pixels, {args.steps} DDIM steps, random weights. Sampling is "
        "E and the U-Net; it does not depend on the scale and was measured once per batch. Rendering is D and f_theta, "
        "and ends with uint8 images on the host. FPS are images per second of both. The last column has the paper's "
        "own numbers, for one RTX 4090; it does not name the batch.",
        ["batch", "scale", "output", "sampling s", "D s", "f_theta s", "FPS", "paper's FPS"],
    )
    for num in args.batch:
        latents = cache(partial(sample_and_decode, model, num, args))  # runs within the first scale's row

        def measure(scale: float, num=num, latents=latents):
            features, times = latents()
            out = round(LR * scale)
            render = partial(batch.render_features, model.engine, features, (out, out))
            times = [*times, seconds(render, args.repeats)]
            return [*times, num / sum(times), str(PAPER_FPS.get(scale, "-"))]

        for scale in args.scales:
            side = round(LR * scale)
            report.row([str(num), f"x{scale:g}", f"{side} x {side}"], partial(measure, scale))
    scale, picture = args.scales[0], photograph(LR)
    cells = speed_networks.make_inputs(model, 1).z.shape[1] ** 2
    report.begin(
        f"One image through `Model.upscale`, an array of {cells} latent cells:",
        ["scale", "seconds", "FPS"],
    )

    def whole():
        took = seconds(lambda: model.upscale(picture, scale, steps=args.steps, sampler="ddim"), args.repeats)
        return [took, 1 / took]

    report.row([f"x{scale:g}"], whole)


def sample_and_decode(model: Model, num: int, args):
    """Returns D's features of `num` latents, and the seconds of sampling and of D."""
    networks, params, x = model.engine.networks, model.engine.params, speed_networks.make_inputs(model, num)
    options = resolve(model.config, {"steps": args.steps, "sampler": "ddim"})

    def sample():
        c = networks.run_condition(params, x.lr)
        return denoise(model.engine, Given(c, None, x.cells, jax.random.key(0)), options)

    decode = partial(batch.decode_features, model.engine, x.z)
    return decode(), [seconds(call, args.repeats) for call in (sample, decode)]


def photograph(side: int) -> np.ndarray:
    """Returns noise with the spectrum of photographs, 1 / f, uint8 [side side 3]."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    spectrum = np.fft.fft2(np.random.default_rng(0).standard_normal((side, side, 3)), axes=(0, 1))
    x = np.fft.ifft2(spectrum / np.maximum(frequency, 1 / side)[..., None], axes=(0, 1)).real
    return np.clip(128 + 50 * x / x.std(), 0, 255).astype(np.uint8)


def bundled(report: Report, args) -> None:
    """Part b."""
    quick = {"steps": 2} if args.quick else {}
    report.begin(
        f"**b. The bundled models** with {'2 steps' if args.quick else 'their own settings'}. Times are those of "
        "`Model.upscale` and `Model.generate`, from uint8 on the host to uint8 on the host.",
        ["model", "steps", "input", "output", "seconds", "megapixels/min", "images/min"],
    )

    def measure(call: Callable[[], np.ndarray], num: int, area: int):
        took = seconds(call, args.repeats)
        return [took, 60e-6 * num * area / took, 60 * num / took]

    for name in storage.bundled_models():
        model = aj.load(name, dtype=args.dtype)
        sampling = model.config["sampling"]
        steps = str(quick.get("steps", sampling["steps"]))
        if model.config["condition"]["enabled"]:
            for side, scale in [(args.side, 4)] + [(1000, 2)] * args.megapixel:
                call, out = partial(model.upscale, photograph(side), scale, **quick), scale * side
                report.row([name, steps, f"{side} x {side}", f"{out} x {out}"], partial(measure, call, 1, out**2))
        else:
            side = sampling["size"]
            num = model.engine.at_once((side // model.factor) ** 2, 64)
            call = partial(model.generate, num, **quick)
            report.row([name, steps, "-", f"{num} of {side} x {side}"], partial(measure, call, num, side**2))


def beside_torch(report: Report, args) -> None:
    """Part c."""
    gpu, threads = jax.default_backend() != "cpu", args.threads or os.cpu_count() or 1
    if importlib.util.find_spec("torch") is None:
        report.say("\n**c. Beside PyTorch**: left out, since torch is not installed.")
        return
    import speed_peers
    import torch

    device = speed_peers.prepare_torch(threads, gpu)
    if device is None:
        report.say("\n**c. Beside PyTorch**: left out, since this torch has no GPU.")
        return
    size = (64, 64) if args.quick else (RENDERED, RENDERED)
    where = "cuda" if device == "cuda" else f"{threads} threads"
    report.begin(
        f"**c. Beside PyTorch** {torch.__version__} ({where}; JAX takes all cores), both in float32, one image. The "
        "faces networks are those of tests/reference_networks.py. Ours count f_theta's first layer to D, and f_theta "
        "ends with uint8 on the host. A ratio above 1 means that ours is faster.",
        ["network", "PyTorch s", "ours s", "PyTorch / ours"],
    )

    def measure(theirs: Callable, ours: Callable, repeats: int = args.repeats):
        found = in_turns({"theirs": theirs, "ours": ours}, repeats)
        return [found["theirs"], found["ours"], found["theirs"] / found["ours"]]

    model = speed_networks.faces_model(args.quick, "float32")
    inputs = speed_networks.make_inputs(model, 1)
    theirs = speed_peers.reference_calls(speed_networks.faces_arch(args.quick), device, (inputs.z, inputs.t), size)
    parts = speed_networks.part_calls(model, 1)
    features = batch.decode_features(model.engine, inputs.z)
    for name, call in theirs.items():
        ours = parts.get(name) or partial(batch.render_features, model.engine, features, size)
        report.row([name if name in parts else f"f_theta, {size[0]} x {size[1]}"], partial(measure, call, ours))
    if args.peer:
        picture, photos = photograph(args.side), aj.load("photos")
        call = speed_peers.realesrgan(args.peer, picture, device)
        name = f"Real-ESRGAN x4plus and `photos`, {args.side} x {args.side} at x4"
        report.row([name], partial(measure, call, lambda: photos.upscale(picture, 4)))


def by_part(report: Report, args) -> None:
    """Part d."""
    top, source = speed_networks.peak(args.dtype, args.peak_tflops, 512 if args.quick else 4096)
    model = speed_networks.faces_model(args.quick, args.dtype)
    report.begin(
        f"**d. By part**: the faces model, {LR} x {LR} pixels. FLOP are XLA's count before compilation. The peak is "
        f"{source}.",
        ["part", "batch", "seconds", "TFLOP", "TFLOP/s", "of the peak"],
    )

    def measure(call: speed_networks.Call):
        took, count = seconds(call, args.repeats), call.flops()
        return [took, count / 1e12, count / took / 1e12, count / took / top]

    for num in args.batch:
        for name, call in speed_networks.part_calls(model, num, RENDERED).items():
            report.row([name, str(num)], partial(measure, call))


PARTS = {"a": table5, "b": bundled, "c": beside_torch, "d": by_part}


def numbers(kind: type) -> Callable[[str], list]:
    """Parses numbers that are separated by commas."""
    return lambda text: [kind(one) for one in text.split(",")]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line and fills in what depends on the device and on --quick."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default=",".join(PARTS), help="parts in their order, separated by commas; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="narrow networks and small sizes, to rehearse")
    parser.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--steps", type=int, help="of DDIM in a; default: 200")
    parser.add_argument("--batch", type=numbers(int), help="numbers of images in a and d; default: 1,16,64")
    parser.add_argument("--scales", type=numbers(float), help="in a; default: 8,12,30,100,200")
    parser.add_argument("--side", type=int, help="of the photograph in b and c; default: 256")
    parser.add_argument("--megapixel", action="store_true", help="in b also 1000 x 1000 pixels at x2")
    parser.add_argument("--repeats", type=int, help="runs of which a time is the median; default: 3")
    parser.add_argument("--peer", type=Path, help="folder of realesrgan-x4plus.param and .bin, for c")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: as many as there are cores")
    parser.add_argument("--peak-tflops", type=float, help="of the chip, for d; default: the data sheet's, or measured")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no row begins after them")
    parser.add_argument("--output", type=Path, help="a file for the tables as well")
    args = parser.parse_args(argv)
    args.only = args.only.split(",")
    if set(args.only) - set(PARTS):
        parser.error(f"--only takes some of {','.join(PARTS)}, got {','.join(args.only)}")
    full = dict(steps=200, batch=[1, 16, 64], scales=[8, 12, 30, 100, 200], side=256, repeats=3)
    quick = dict(steps=2, batch=[1], scales=[8, 12], side=16, repeats=1)
    for name, value in (quick if args.quick else full).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.dtype = args.dtype or program.default_dtype()
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    compile_cache.enable()
    xla_flags.prefer_eigen()
    report = Report(args.output, args.minutes)
    note = " A rehearsal with narrow networks, whose numbers mean nothing." if args.quick else ""
    report.say(
        f"# Speed on {speed_networks.machine()}, JAX {jax.__version__}, {args.dtype}\n\nMedian of {args.repeats} "
        "run(s). Host MiB are the largest resident set during a row, or since the process began where Linux does not "
        f"let it be reset; device MiB are the largest use since the process began.{note}"
    )
    for name in args.only:
        PARTS[name](report, args)


if __name__ == "__main__":
    main()
