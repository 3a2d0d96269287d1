"""Measures the web server: the time from a tile's request to its picture, for many clients and for one.

    python benchmarks/serve_load.py                    # 20 clients zoom for a minute, with a narrow random model
    python benchmarks/serve_load.py --tiles photos     # one client, the bundled model, tiles of 256 pixels

Both start `python -m arbiscale_jax.web` on this machine and ask it by HTTP, as the page does. Exits with 1 if a request
fails.
"""

import argparse
import http.client
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from arbiscale_jax.artifacts import fit, registry, storage
from arbiscale_jax.experiments import get_base_config

TILE = 256


def write_narrow(folder: Path) -> Path:
    """Exports a narrow generator with random weights."""
    config = get_base_config().model
    config.first_stage.update(ch=16, ch_mult=(1, 2), num_res_blocks=1, num_groups=4, z_channels=4, mid_attention=False)
    config.liif.hidden = (32, 32)
    config.unet.update(model_channels=16, channel_mult=(1, 2), num_res_blocks=1, attention_rates=(), num_groups=4)
    config.unet.update(num_head_channels=8, mid_attention=False)
    config.sampling.update(steps=10, size=64)
    model, rng, weights = config.to_dict(), np.random.default_rng(0), {"scale_factor": np.float32(1)}
    for part in ("first_stage", "unet"):
        flat = storage.flatten(fit.network_shapes(model, part))
        drawn = {key: rng.normal(0, 0.1, x.shape).astype(np.float32) for key, x in flat.items()}
        weights[part] = storage.unflatten(drawn)
    registry.write_export(folder, {"model": model}, weights, "", np.float32)
    return folder


@contextmanager
def server(*flags: str):
    """Starts the server, and yields (port, its process)."""
    command = [sys.executable, "-m", "arbiscale_jax.web", "--port=0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield int(re.search(r":(\d+)/", line)[1]), process
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body=None, client="one-client") -> bytes:
    """Sends a request and returns the body of the answer, which has to be a success."""
    connection.request(method, path, body, {"X-Client": client})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
    return content


def tile_path(view: str, base: int, level: int, row: int, col: int) -> str:
    """Returns the path of a tile of the image that is base * 2^level pixels a side."""
    side = base * 2**level
    height, width = min(TILE, side - row * TILE), min(TILE, side - col * TILE)
    return f"/api/views/{view}/window?size={side}x{side}&box={row * TILE},{col * TILE},{height},{width}"


def zoom(port: int, number: int, end: float, times: list[float], failures: list[str]) -> None:
    """Zooms in and out like somebody who looks around: four neighbouring tiles at each place."""
    rng, name = random.Random(number), f"client-{number:04d}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    view, level, y, x = f"image-{number}-0", 2, 0.5, 0.5
    while time.monotonic() < end:
        count = max(1, 64 * 2**level // TILE)
        row, col = min(count - 1, int(y * count)), min(count - 1, int(x * count))
        for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
            if row + down >= count or col + across >= count or time.monotonic() >= end:
                continue
            began = time.monotonic()
            try:
                content = ask(connection, "GET", tile_path(view, 64, level, row + down, col + across), None, name)
                assert content.startswith(b"\x89PNG")
                times.append(time.monotonic() - began)
            except Exception as e:  # every failure counts
                failures.append(repr(e))
                connection.close()
        level = min(12, max(0, level + rng.choice((-1, 1, 1))))
        y, x = (min(max(at + rng.gauss(0, 0.5 / count), 0), 1) for at in (y, x))
        if rng.random() < 0.03:
            view = f"image-{number}-{rng.randrange(8)}"
    connection.close()


def memory(pid: int) -> tuple[float, float]:
    """Returns the resident memory of a process in MB, now and at most."""
    text = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1000 for name in ("VmRSS", "VmHWM"))


def processor(pid: int) -> float:
    """Returns the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def summary(times: list[float]) -> str:
    """Says the median and the 95th percentile."""
    return f"median {1000 * statistics.median(times):.0f} ms, 95th percentile {1000 * np.percentile(times, 95):.0f} ms"


def many(clients: int, seconds: float) -> int:
    """Lets clients zoom, and prints what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_narrow(Path(folder) / "narrow")
        with server("--model=", f"--generator={model}") as (port, process):
            times, failures, resident = [], [], []
            warm = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            for level in range(13):  # programs are compiled before the clock runs
                ask(warm, "GET", tile_path("image-0-0", 64, level, 0, 0))
            warm.close()
            used, end = processor(process.pid), time.monotonic() + seconds
            threads = [
                threading.Thread(target=zoom, args=(port, number, end, times, failures)) for number in range(clients)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                resident.append(memory(process.pid)[0])
                threads[0].join(seconds / 12)
                threads[-1].join(seconds / 60)
            for thread in threads:
                thread.join()
            used = processor(process.pid) - used
            print(f"{clients} clients, {seconds:g} s: {len(times)} tiles, {len(failures)} failures; {summary(times)}")
            print(f"{1000 * used / len(times):.0f} ms of processor time per tile")
            half = len(resident) // 2
            first, second = max(resident[:half]), max(resident[half:])
            print(f"resident memory: at most {first:.0f} MB in the first half, {second:.0f} MB in the second")
            print("\n".join(failures[:5]))
            return 1 if failures or not times else 0


def single(name: str, number: int) -> int:
    """Asks for one tile after another of an answer for an example, and prints the times."""
    with server(f"--model={name}", "--generator=") as (port, process):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        content = ask(connection, "GET", "/api/examples/cat")
        picture = re.search(rb'"id":"([0-9a-f]+)"', ask(connection, "POST", "/api/pictures", content))[1].decode()
        view = f"photo-{picture}-0-0-auto"
        began = time.monotonic()
        ask(connection, "GET", tile_path(view, 96, 5, 0, 0))
        print(f"the first tile, with sampling and compilation: {time.monotonic() - began:.1f} s")
        everything = []
        for level in (4, 6, 9):
            ask(connection, "GET", tile_path(view, 96, level, 0, 0))
            count, times, used = 96 * 2**level // TILE, [], processor(process.pid)
            for i in range(1, min(number, count**2 - 1) + 1):
                row, col = divmod(i * 7 % count**2, count)
                began = time.monotonic()
                ask(connection, "GET", tile_path(view, 96, level, row, col))
                times.append(time.monotonic() - began)
            used = (processor(process.pid) - used) / len(times)
            everything += times
            print(f"x{2**level}: {len(times)} tiles, {summary(times)}, {1000 * used:.0f} ms of processor time per tile")
        connection.close()
        print(f"all: {summary(everything)}")
        print("resident memory: {:.0f} MB, at most {:.0f} MB".format(*memory(process.pid)))
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tiles", metavar="MODEL", help="measure the tiles of one model instead")
    parser.add_argument("--number", type=int, default=30, help="tiles at each scale, with --tiles")
    options = parser.parse_args()
    return single(options.tiles, options.number) if options.tiles else many(options.clients, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
