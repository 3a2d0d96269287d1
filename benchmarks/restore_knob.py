"""How much noise is left as `restore` goes from 0 to 1, and what the detail loses.

Inputs are clean pictures and the same with noise or JPEG. Left: the RMS difference of the two answers, of 255, which is
what of the damage reaches the output. Run: python benchmarks/restore_knob.py --model MODEL --data DIR
"""

import argparse

import numpy as np
from common import centre_crops, markdown, psnr, resized
from judge import jpeg, noisy

import arbiscale_jax as aj

SCALE, LEVELS = 4, (0.0, 0.25, 0.5, 0.75, 1.0, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="bundled model, run or exported folder that is told the damage")
    parser.add_argument("--data", required=True, help="folder of pictures")
    parser.add_argument("--side", type=int, default=256, help="of the central square")
    args = parser.parse_args()
    model, crops = aj.load(args.model), list(centre_crops(args.data, args.side).values())
    inputs = [resized(truth, [side // SCALE for side in truth.shape[:2]]) for truth in crops]
    damaged = {
        "noise 12": [noisy(x, 12, np.random.default_rng(i)) for i, x in enumerate(inputs)],
        "JPEG 40": [jpeg(x, 40) for x in inputs],
    }
    rows = []
    for restore in LEVELS:

        def upscale(x, restore=restore):
            return model.upscale(x, scale=SCALE, restore=restore)

        clean = [upscale(x) for x in inputs]
        row = ["by itself" if restore is None else f"{restore:g}", f"{np.mean(list(map(psnr, clean, crops))):.2f}"]
        for pictures in damaged.values():
            answers = [upscale(x) for x in pictures]
            left = [np.sqrt(np.mean((np.float64(a) - b) ** 2)) for a, b in zip(answers, clean, strict=True)]
            row += [f"{np.mean(left):.2f}", f"{np.mean(list(map(psnr, answers, crops))):.2f}"]
        rows.append(row)
    header = ["restore", "clean, PSNR"] + [f"{name}, {what}" for name in damaged for what in ("left, of 255", "PSNR")]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
