"""Measures pictures of many sizes against pictures of one size, and the memory that very large pictures need.

Run: python benchmarks/any_size.py [--model MODEL] [--only sizes,large,render]

Every measurement is a process of its own without a compilation cache, so times include compilation. `large` and
`render` use a narrow network with random weights: what they measure is memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import arbiscale_jax as aj
from arbiscale_jax.evaluation.speed import peak_host
from arbiscale_jax.experiments import get_restoring_config
from arbiscale_jax.images.streams import open_stream
from arbiscale_jax.models import axis, build_first_stage, build_unet

SIDES = (60, 200)  # range of the sides of pictures, in pixels
COUNT, SCALE = 24, 3
LARGE, OUTPUT, RENDER = (4000, 6000), (8000, 12_000), (20_000, 20_000)


def many_sizes(model: aj.Model, *, equal: bool) -> dict[str, float]:
    """Upscales COUNT pictures of random sizes, or of one size with as many pixels, and counts compiled programs."""
    sides = np.random.default_rng(0).integers(*SIDES, (COUNT, 2))
    if equal:
        side = round(float(np.sqrt(np.mean(np.prod(sides, axis=1)))))
        sides = np.full((COUNT, 2), side)
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides]
    sizes, start = [tuple(SCALE * side) for side in sides], time.perf_counter()
    for _, _, rows in model.upscale_each(pictures, sizes):
        for _ in rows:
            pass
    return {"seconds": time.perf_counter() - start, "megapixels": float(np.prod(sides, axis=1).sum() / 1e6)}


def narrow_model() -> aj.Model:
    """Makes the restoring model with few channels and random weights."""
    model = get_restoring_config("align").model.unlock()
    model.first_stage.update(ch=8, num_groups=1, z_channels=6)
    model.first_stage.subcell.update(blocks=1, features=4, convs=1)
    model.liif.hidden = (8,)
    model.unet.update(model_channels=8, num_groups=1)
    config = json.loads(model.to_json())
    net, unet, key, z = build_first_stage(config), build_unet(config), jax.random.key(0), np.zeros((1, 8, 8, 6))
    first = jax.jit(net.init)(key, np.zeros((1, 16, 16, 3), np.float32), axis(16, 8), axis(16, 8))["params"]
    return aj.Model(config, {"first_stage": first, "unet": jax.jit(unet.init)(key, z, np.zeros(1), z)["params"]})


def large_picture(folder: Path) -> dict[str, float]:
    """Upscales a picture of LARGE pixels and streams it to a PNG file; returns seconds and the peak of memory."""
    model, picture, start = narrow_model(), np.zeros((*LARGE, 3), np.uint8), time.perf_counter()
    picture[:] = np.arange(LARGE[1])[None, :, None] % 251
    for _, _, rows in model.upscale_each([picture], [OUTPUT]):
        with open_stream(folder / "large.png", OUTPUT) as stream:
            for some in rows:
                stream.write(some)
    return {"seconds": time.perf_counter() - start, "GiB": peak_host() / 2**30}


def large_render(folder: Path) -> dict[str, float]:
    """Renders a latent at RENDER pixels and streams it to a TIFF file; returns seconds and the peak of memory."""
    model, start = narrow_model(), time.perf_counter()
    z = np.random.default_rng(0).normal(size=(100, 100, 6)).astype(np.float32)
    with open_stream(folder / "render.tif", RENDER) as stream:
        for some in model.render_rows(z, RENDER):
            stream.write(some)
    return {"seconds": time.perf_counter() - start, "GiB": peak_host() / 2**30}


def measure(name: str, model: str) -> dict[str, float]:
    """Runs one measurement in this process."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "large":
            return large_picture(Path(folder))
        if name == "render":
            return large_render(Path(folder))
        return many_sizes(aj.load(model), equal=name == "equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="photos")
    parser.add_argument("--only", default="sizes,large,render")
    parser.add_argument("--one", help="for the script itself: a single measurement")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.model)))
        return
    found = {}
    for part in args.only.split(","):
        for name in ("equal", "sizes") if part == "sizes" else (part,):
            command = [sys.executable, __file__, "--model", args.model, "--one", name]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=os.environ | {"ARBISCALE_CACHE": ""}
            )
            found[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, {key: round(value, 2) for key, value in found[name].items()}, flush=True)
    if "sizes" in found:
        rate = {name: found[name]["seconds"] / found[name]["megapixels"] for name in ("equal", "sizes")}
        print(f"{COUNT} sizes against one, per pixel: {rate['sizes'] / rate['equal']:.2f} times as long")


if __name__ == "__main__":
    main()
