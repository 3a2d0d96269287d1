"""What a first stage gives back: true pictures through E, D and f_theta, at the size that E sees and at others.

Run: python benchmarks/rebuild.py --model RUN_OR_FOLDER --data DIR [--side 192] [--save DIR]
Prints PSNR in dB of the rebuilt central squares, and the weave of the rebuilt and of the true ones.
"""

import argparse
from pathlib import Path

import numpy as np
from common import centre_crops, psnr
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax import models
from arbiscale_jax.evaluation import weave
from arbiscale_jax.inference import to_floats


def rebuild(model, crops: dict, save: Path | None = None) -> dict:
    """Encodes and renders pictures; returns mean PSNR, and the weaves of rebuilt and true pictures."""
    spectra, values = weave.Spectra(), []
    for name, truth in crops.items():
        x = models.reflect_border(to_floats(truth)[None], model.border * model.factor)
        z = models.cut_border(model.encode(x), model.border)
        back = model.render(z, truth.shape[:2])[0]
        values.append(psnr(back, truth))
        spectra.add("rebuilt", back, truth)
        spectra.add("truth", truth, truth)
        if save:
            save.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.hstack([truth, back])).save(save / f"{Path(name).stem}.png")
    return {"psnr": float(np.mean(values)), "least": min(values), **spectra.weaves()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="run or exported folder")
    parser.add_argument("--data", required=True, help="folder of pictures")
    parser.add_argument("--side", type=int, default=192, help="of the central square")
    parser.add_argument("--save", type=Path, help="folder for truth and rebuilt side by side")
    args = parser.parse_args()
    found = rebuild(aj.load(args.model), centre_crops(args.data, args.side), args.save)
    print(
        f"rebuilt {found['psnr']:.2f} dB (the least {found['least']:.2f}), weave {found['rebuilt']:.2f}, "
        f"of the truth {found['truth']:.2f}"
    )


if __name__ == "__main__":
    main()
