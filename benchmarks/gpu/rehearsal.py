"""A toy pack for --rehearse: a few of scikit-image's photographs, drawn shapes, LPIPS networks of four channels."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_pack(args, folder: Path) -> None:
    """Writes a pack into `folder` and points `args` at it."""
    import skimage.data

    from arbiscale_jax.artifacts.weights import save_weights

    args.pack = folder
    for name in ("photos_0", "photos_1", "emoji_0", "drawn", "val"):
        (folder / name).mkdir()
    photographs = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]
    for i, photograph in enumerate(photographs):
        crop = photograph[60:220, 100:260]
        Image.fromarray(crop).save(folder / f"photos_{i % 2}" / f"{i}.webp", quality=92)
        Image.fromarray(photograph[40:104, 150:214]).save(folder / "val" / f"{i}.webp", lossless=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        picture = np.full((64, 64, 3), 255, np.uint8)
        y, x, side = rng.integers(8, 30, 3)
        picture[y : y + side, x : x + side] = rng.integers(0, 256, 3)
        Image.fromarray(picture).save(folder / "drawn" / f"{i}.webp", lossless=True)
        Image.fromarray(picture).save(folder / "emoji_0" / f"{'ab'[i % 2]}__square-{'xyz'[i // 2]}.webp", lossless=True)
    for net, sides in (("alex", (11, 5, 3, 3, 3)), ("vgg", (3,) * 13)):
        channels = [3, *[4] * len(sides)]
        convs = {
            str(i): {"kernel": rng.normal(size=(k, k, channels[i], 4)) / k, "bias": np.zeros(4)}
            for i, k in enumerate(sides)
        }
        heads = {str(i): np.ones(4) for i in range(5)}
        (folder / "lpips").mkdir(exist_ok=True)
        save_weights(folder / "lpips" / f"{net}.safetensors", {"convs": convs, "heads": heads}, np.float16)
