"""Packs what the kit needs and a bare machine lacks: pictures, validation crops, LPIPS in half precision.

Run: python benchmarks/gpu/pack.py --data DATA --output .kit (DATA holds photos/ and emoji/ as the shared pack does)
Written: OUTPUT/photos_0, photos_1, ...: training pictures, cut to where detail is densest, as WebP, each folder below
--part megabytes; OUTPUT/drawn: emoji for the sheets; OUTPUT/emoji_0, ...; OUTPUT/val: the centres of the validation
pictures, lossless; OUTPUT/lpips. Each folder travels in a call of its own (benchmarks/gpu/README.md).
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from arbiscale_jax import data
from arbiscale_jax.perceptual import save_lpips

QUALITY = 92  # of WebP
VAL_SIDE = 384
DRAWN = 160  # emoji for the sheets of photos


def densest(image: np.ndarray, side: int) -> np.ndarray:
    """Cuts the window of at most `side` pixels per side in which neighbouring pixels differ most."""
    h, w = image.shape[:2]
    height, width = min(h, side), min(w, side)
    grey = image.mean(axis=2)
    detail = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    total = np.pad(detail, ((1, 1), (1, 1))).cumsum(0).cumsum(1)  # sums over all that lies above and left

    def of(i, j):
        return total[i + height - 1, j + width - 1] - total[i, j + width - 1] - total[i + height - 1, j] + total[i, j]

    corners = [(i, j) for i in range(0, h - height + 1, 16) for j in range(0, w - width + 1, 16)]
    top, left = max(corners, key=lambda corner: of(*corner))
    return image[top : top + height, left : left + width]


def pack(pictures, output: Path, name: str, limit: float, side: int, *, named: bool = False) -> None:
    """Writes pictures as OUTPUT/NAME_0, OUTPUT/NAME_1, ..., each folder below `limit` bytes.

    With `named` they keep their names, from which labels are taken; without it they are numbered.
    """
    part, used = 0, 0
    for i in range(len(pictures)):
        buffer = io.BytesIO()
        Image.fromarray(densest(pictures[i], side)).save(buffer, "WEBP", quality=QUALITY, method=4)
        if used + buffer.tell() > limit:
            part, used = part + 1, 0
        folder = output / f"{name}_{part}"
        folder.mkdir(parents=True, exist_ok=True)
        stem = Path(pictures.name(i)).stem if named else f"{i:05d}"
        (folder / f"{stem}.webp").write_bytes(buffer.getvalue())
        used += buffer.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(".kit"))
    parser.add_argument("--part", type=float, default=24.0, help="megabytes of a folder, at most")
    parser.add_argument("--side", type=int, default=768, help="of a photograph's window, in pixels")
    args = parser.parse_args()
    if args.output.is_dir() and any(args.output.iterdir()):
        raise SystemExit(f"{args.output} is not empty; remove it first.")
    limit, roots = args.part * 1e6, [args.data / "photos" / name for name in ("train", "extra")]
    pack(data.make_source("folder", ",".join(map(str, roots)), "all"), args.output, "photos", limit, args.side)
    emoji = args.data / "emoji" / "train_256"
    if emoji.is_dir():
        source = data.make_source("folder", str(emoji), "all")
        pack(source, args.output, "emoji", limit, 256, named=True)
        chosen = np.random.default_rng(0).choice(len(source), min(DRAWN, len(source)), replace=False)
        (args.output / "drawn").mkdir()
        for i in chosen:
            Image.fromarray(source[int(i)]).save(args.output / "drawn" / f"{i:05d}.webp", quality=QUALITY)
    (args.output / "val").mkdir()
    val = data.make_source("folder", str(args.data / "photos" / "val"), "all")
    for i in range(len(val)):
        h, w = val[i].shape[:2]
        top, left = (h - VAL_SIDE) // 2, (w - VAL_SIDE) // 2
        crop = Image.fromarray(val[i][top : top + VAL_SIDE, left : left + VAL_SIDE])
        crop.save(args.output / "val" / f"{i:02d}.webp", lossless=True)
    for net in ("alex", "vgg"):
        save_lpips(net, args.output / "lpips")
    for folder in sorted(args.output.iterdir()):
        print(f"{folder}: {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
