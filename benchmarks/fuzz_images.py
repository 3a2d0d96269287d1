"""Reads mutated image files, and reports what ends in anything but a picture or one sentence.

    python benchmarks/fuzz_images.py --num 10000 --seed 0

File i is made of the seed and i alone, so that `--only i` makes it again. The files of a corpus of all formats, modes
and depths are mutated: bits flipped, bytes replaced, parts cut out, doubled or moved, numbers set to extremes, tails
cut off. Processes read them, each with a limit on its address space. A read must end within ten seconds in a picture
or a UserError, without output, warning or more than 1 GiB; what does not is printed with its number and kept in
--keep.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from arbiscale_jax.errors import UserError
from arbiscale_jax.images import decode_image, read_frames
from arbiscale_jax.images.formats import EXTENSIONS
from arbiscale_jax.images.icc import srgb_profile

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 9000, 30000, 65536)
SECONDS, BYTES = 10, 1 << 30
ADDRESSES = 8 << 30  # the limit on a process: beyond BYTES, which counts what is used


def corpus() -> dict[str, bytes]:
    """Returns small files of all formats by their names."""
    rng, found = np.random.default_rng(0), {}
    rgba = np.asarray(Image.fromarray(rng.integers(0, 256, (5, 7, 4), np.uint8)).resize((40, 30)))
    rgb, grey = rgba[..., :3].copy(), rgba[..., 0].copy()
    exif = Image.Exif()
    exif[0x0112], exif[271], exif[34665] = 6, "Maker", {36867: "2020:01:02 03:04:05"}
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 300, zip=True)
    text.add_itxt("Title", "title", zip=True)
    extras = {"icc_profile": srgb_profile(), "exif": exif.tobytes(), "dpi": (72, 72)}
    images = {
        "RGB": Image.fromarray(rgb),
        "L": Image.fromarray(grey),
        "RGBA": Image.fromarray(rgba),
        "P": Image.fromarray(rgb).quantize(16),
        "1": Image.fromarray(grey > 99),
        "LA": Image.fromarray(rgba).convert("LA"),
        "CMYK": Image.fromarray(rgb).convert("CMYK"),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 257),
        "F": Image.fromarray(grey.astype(np.float32) / 255),
    }
    for kind in EXTENSIONS:
        for mode, image in images.items():
            options = {"pnginfo": text} if kind == "PNG" else {}
            options |= extras if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                file = io.BytesIO()
                image.save(file, kind, **options)
                found[f"{kind}-{mode}.{kind.lower()}"] = file.getvalue()
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        file, frames = io.BytesIO(), [Image.fromarray(np.roll(rgb, i, 1)) for i in range(4)]
        frames[0].save(file, kind, save_all=True, append_images=frames[1:])
        found[f"{kind}-frames.{kind.lower()}"] = file.getvalue()
    for packing in ("tiff_lzw", "packbits", "group4", "jpeg", "zstd", "tiff_deflate"):
        file = io.BytesIO()
        images["1" if packing == "group4" else "RGB"].save(file, "TIFF", compression=packing)
        found[f"TIFF-{packing}.tiff"] = file.getvalue()
    deep = np.moveaxis(rgba.astype(np.uint16) * 257, -1, 0)
    for dtype, planar, options in (
        ("u2", "contig", {"compression": "zlib", "predictor": 2, "tile": (16, 16)}),
        ("u2", "separate", {"byteorder": ">"}),
        ("u4", "contig", {"rowsperstrip": 7}),
        ("f4", "contig", {"compression": "zlib"}),
        ("f2", "separate", {"bigtiff": True}),
    ):
        file, values = io.BytesIO(), (deep[:3] / (1 if dtype[0] == "u" else 65535)).astype(dtype)
        values = values if planar == "separate" else np.moveaxis(values, 0, -1)
        tifffile.imwrite(file, values, photometric="rgb", planarconfig=planar, **options)
        found[f"TIFF-{dtype}-{planar}.tiff"] = file.getvalue()
    for colour, channels in ((2, 3), (6, 4), (4, 2)):
        found[f"PNG-16-{channels}.png"] = deep_png(np.moveaxis(deep[:channels], 0, -1), colour)
    found["PPM-16.ppm"] = b"P6 40 30 65535\n" + np.moveaxis(deep[:3], 0, -1).astype(">u2").tobytes()
    found["PPM-float.pfm"] = b"PF\n40 30\n-1.0\n" + (rgb / 255).astype("<f4").tobytes()
    return found


def deep_png(values: np.ndarray, colour: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def mutated(seed: int, number: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Makes file `number`: (name, content)."""
    rng = np.random.default_rng((seed, number))
    names = sorted(files)
    name = names[rng.integers(len(names))]
    content = bytearray(files[name])
    for _ in range(rng.geometric(0.6)):
        if not content:
            break
        near_head = rng.random() < 0.5  # where formats keep what they are
        place = int(rng.integers(min(len(content), 300) if near_head else len(content)))
        length = int(rng.integers(1, 2 + len(content) // 20))
        match rng.integers(8):
            case 0:
                content[place] ^= 1 << int(rng.integers(8))
            case 1:
                content[place] = int(rng.integers(256))
            case 2:
                extreme = EXTREMES[rng.integers(len(EXTREMES))]
                order = "<>"[rng.integers(2)]
                content[place : place + 4] = struct.pack(f"{order}I", extreme)
            case 3:
                del content[place : place + length]
            case 4:
                content[place:place] = content[place : place + length]
            case 5:
                del content[place:]
            case 6:
                other = int(rng.integers(len(content)))
                content[place : place + length] = content[other : other + length]
            case 7:
                content[place : place + length] = rng.bytes(length)
    if name.endswith(".png") and rng.random() < 0.7:  # otherwise most of them end at the first checksum
        content = bytearray(with_checksums(bytes(content)))
    return name, bytes(content)


def with_checksums(content: bytes) -> bytes:
    """Corrects the checksums of a PNG file."""
    out, place = bytearray(content), 8
    while place + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, place)
        end = place + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[place + 4 : end]))
        place = end + 4
    return bytes(out)


def peak() -> int:
    """Returns the most memory that this process has used, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def outcome(name: str, content: bytes) -> str:
    """Reads a file as the commands do, and says what came of it."""
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for work in (lambda: decode_image(content, name), lambda: [one.picture for one in read_frames(content)]):
            try:
                work()
                said.append("picture")
            except UserError as e:
                said.append("sentence" if "\n" not in str(e) and str(e).endswith(".") else f"no sentence: {e}")
            except BaseException:
                said.append(traceback.format_exc())
    if caught:
        said.append(f"warning: {caught[0].message}")
    bad = [one for one in said if one not in ("picture", "sentence")]
    return bad[0] if bad else said[0]


def work(seed: int, numbers: range, results) -> None:
    """Reads files until one uses too much memory, which a new process then does not inherit."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    files = corpus()
    kept = tempfile.TemporaryFile()  # what libraries print
    log = kept.fileno()
    os.dup2(log, 1)
    os.dup2(log, 2)
    for number in numbers:
        name, content = mutated(seed, number, files)
        results.send((number, None, 0.0, 0))
        start, size = time.monotonic(), os.fstat(log).st_size
        said = outcome(name, content)
        written = os.fstat(log).st_size - size
        if written:
            said = f"output: {os.pread(log, 300, size)!r}"
        results.send((number, said, time.monotonic() - start, peak()))
        if peak() > BYTES:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first file")
    parser.add_argument("--only", type=int, help="reads this file alone, in this process")
    parser.add_argument("--keep", type=Path, help="a folder for the files that fail")
    args = parser.parse_args()
    files = corpus()
    if args.only is not None:
        print(outcome(*mutated(args.seed, args.only, files)))
        return
    counts, bad, slowest, most = Counter(), [], (0.0, 0), (0, 0)
    context, number, began = multiprocessing.get_context("spawn"), args.first, time.monotonic()
    while number < args.first + args.num:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(args.seed, range(number, args.first + args.num), theirs))
        process.start()
        theirs.close()
        begun = None
        while True:
            try:
                if not ours.poll(60 if begun is None else SECONDS + 5):
                    said = "hang"
                    break
                found, said, seconds, memory = ours.recv()
            except EOFError:
                said = f"the process ended ({process.exitcode})"
                break
            if said is None:
                begun = found
                continue
            number, begun = found + 1, None
            if seconds > SECONDS:
                said = f"{seconds:.0f} s"
            if memory > BYTES:
                said = f"{memory / BYTES:.1f} GiB"
            counts[said if said in ("picture", "sentence") else "failure"] += 1
            slowest, most = max(slowest, (seconds, found)), max(most, (memory, found))
            if said not in ("picture", "sentence"):
                bad.append((found, said))
                print(f"file {found} ({mutated(args.seed, found, files)[0]}): {said}", flush=True)
        process.kill()
        process.join()
        if begun is not None:
            bad.append((begun, said))
            counts["failure"] += 1
            print(f"file {begun} ({mutated(args.seed, begun, files)[0]}): {said}", flush=True)
            number = begun + 1
    for found, _ in bad if args.keep else ():
        args.keep.mkdir(parents=True, exist_ok=True)
        name, content = mutated(args.seed, found, files)
        (args.keep / f"{found}_{name}").write_bytes(content)
    print(f"seed {args.seed}, files {args.first} to {number - 1} of a corpus of {len(files)}: {dict(counts)}")
    print(f"slowest: {slowest[0]:.2f} s (file {slowest[1]}); memory: {most[0] / 2**20:.0f} MiB (file {most[1]})")
    print(f"{time.monotonic() - began:.0f} s in all")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
