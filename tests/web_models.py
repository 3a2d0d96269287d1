"""What tests of the web server share: tiny models on disk, sites of them, and a worker that is kept busy."""

import struct
import threading
import zlib
from contextlib import contextmanager

import numpy as np
from recipes import tiny

import arbiscale_jax as aj
from arbiscale_jax.artifacts import fit, registry, storage
from arbiscale_jax.web.limits import Limits
from arbiscale_jax.web.site import make_site
from arbiscale_jax.web.worker import Task

HOST = "http://127.0.0.1:8000"


def write_models(folder):
    """Exports a tiny model that upscales and one that generates; returns their folders."""
    found = []
    for name, conditioned in (("small_photos", True), ("small_emoji", False)):
        fields = {"model.condition.enabled": conditioned, "model.unet.mid_attention": False}
        model = tiny("align", **fields).model.to_dict()
        model["sampling"].update(steps=2, start=0.3 if conditioned else 0.0, size=16, refine=0)
        rng, weights = np.random.default_rng(0), {"scale_factor": np.float32(0.5)}
        for part in ("first_stage", "unet"):
            flat = storage.flatten(fit.network_shapes(model, part))
            drawn = {key: rng.normal(0, 0.3, x.shape).astype(np.float32) for key, x in flat.items()}
            weights[part] = storage.unflatten(drawn)
        registry.write_export(folder / name, {"model": model}, weights, "", np.float32)
        found.append(folder / name)
    return found


@contextmanager
def site_of(folders, store=None, **limits):
    """Makes a site of the models in two folders, None for no model, and closes it."""
    models = [folder and aj.load(folder) for folder in folders]
    site = make_site(*models, Limits(**limits), store)
    try:
        yield site
    finally:
        assert site.worker.close(60)
        site.close()


@contextmanager
def busy(worker):
    """Keeps a worker busy, so that whatever is submitted waits."""
    began, over = threading.Event(), threading.Event()

    def steps(task):
        began.set()
        assert over.wait(60)
        return
        yield

    task = worker.submit(Task("somebody else", steps))
    try:
        assert began.wait(60)
        yield
    finally:
        over.set()
        task.future.result(60)


def picture(height=12, width=10, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)


def bomb():
    """A PNG file of 30000 x 30000 pixels in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
