"""How good the emoji model is: its samples and its auto-encoder against pictures whose detail is known at every size.

Run: python benchmarks/emoji_quality.py --data DIR --num 200 --output out/emoji_quality (10 minutes on 2 CPU cores)
DIR has train/, val/ (128 pixels), val_256/ and val_512/, the same pictures at three sizes. Prints FD-VGG and KD-VGG of
  samples against the training set, beside training against validation pictures (the floor), equally many of each, and
    at most as many as there are;
  reconstructions of validation pictures rendered at 128, 256 and 512 against the true ones of that size;
and SelfSSIM of the samples over 128, 160 and 192. Writes grid.png, samples, and nearest.png, samples beside the
training pictures nearest to them (32 x 32 pixels compared). --sampler, --steps, --eta, --seed, --prompt, --guidance and
--guidance-interval choose how samples are made, and --samples-only leaves the auto-encoder out. Needs the extra `eval`.
`run_eval.py --task generate` has patches, precision and recall.
"""

import argparse
from pathlib import Path

import numpy as np
from common import features_of, frechet, markdown, resized
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax import data
from arbiscale_jax.evaluation import distances, features
from arbiscale_jax.evaluation.self_ssim import self_ssim
from arbiscale_jax.inference import to_floats
from arbiscale_jax.runtime.mesh import make_mesh

BATCH = 10
SIZES = (128, 160, 192)  # of SelfSSIM
SAMPLING = {"sampler": str, "steps": int, "eta": float, "prompt": str, "guidance": float}


def pictures(folder: Path, names: list[str] | None, num: int) -> dict[str, np.ndarray]:
    """Reads the named pictures of a folder, or a fixed random choice of at most `num`: name -> uint8 [h w 3]."""
    source = data.make_source("folder", str(folder), "all")
    index = {source.name(i): i for i in range(len(source))}
    if names is None:
        names = sorted(np.random.default_rng(0).choice(sorted(index), min(num, len(index)), replace=False))
    return {name: source[index[name]] for name in names}


def reconstruct(model, x, side: int) -> np.ndarray:
    """Encodes a picture at the size that E was trained on and renders it at `side`."""
    small = resized(x, (model.config["sampling"]["size"],) * 2)
    return model.render(model.encode(to_floats(small)[None]), (side, side))[0]


def grid(rows: list[list[np.ndarray]]) -> Image.Image:
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--num", type=int, default=200, help="pictures on each side of a distance")
    parser.add_argument("--seed", type=int, default=0)
    for name, kind in SAMPLING.items():
        parser.add_argument(f"--{name}", type=kind, help="of sampling; default: the model's")
    parser.add_argument("--guidance-interval", metavar="FIRST,LAST", help="share of the times that are guided")
    parser.add_argument("--samples-only", action="store_true", help="measure the samples alone")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model, num = aj.load(args.model), args.num
    extractor, known = features.make_extractor("vgg", make_mesh()), {}

    def found(name: str, images) -> np.ndarray:
        if name not in known:
            known[name] = features_of(extractor, list(images), BATCH)
        return known[name]

    def compare(title: str, a: np.ndarray, b: np.ndarray) -> list[str]:
        kernel, _ = distances.kernel_distance(a, b)
        return [title, str(len(a)), f"{frechet(a, b):.2f}", f"{1000 * kernel:.2f}"]

    sampling = {name: getattr(args, name) for name in SAMPLING if getattr(args, name) is not None}
    if args.guidance_interval:
        sampling["guidance_interval"] = tuple(map(float, args.guidance_interval.split(",")))
    z = model.generate_latent(num, seed=args.seed, **sampling)
    samples = {side: model.render(z, (side, side)) for side in SIZES}
    train = found("train", pictures(args.data / "train", None, num).values())

    rows = [compare("samples, training set", found("samples", samples[128]), train)]
    if not args.samples_only:
        val = {512: pictures(args.data / "val_512", None, num)}
        for side, folder in ((256, "val_256"), (128, "val")):
            val[side] = pictures(args.data / folder, list(val[512]), num)
        floor = found("val 128", val[128].values())
        equal = np.random.default_rng(0).choice(len(train), len(floor), replace=False)  # their order is that of names
        rows.append(compare("validation, training set (floor)", floor, train[equal]))
        for side, truth in val.items():
            again = found(f"again {side}", [reconstruct(model, x, side) for x in val[128].values()])
            rows.append(compare(f"reconstructions, truth at {side}", again, found(f"val {side}", truth.values())))
    print(markdown(["compared", "images", extractor.frechet, f"{extractor.kernel} x 1000"], rows))

    matrix = np.mean([self_ssim([samples[side][i] for side in SIZES]) for i in range(min(num, 50))], axis=0)
    print(f"SelfSSIM over {SIZES}: least {matrix.min():.4f}\n{np.round(matrix, 4)}")
    cells = samples[128][:64]
    grid([list(cells[i : i + 8]) for i in range(0, len(cells), 8)]).save(args.output / "grid.png")
    source = data.make_source("folder", str(args.data / "train"), "all")
    small = np.stack([np.float32(resized(source[i], (32, 32))) for i in range(len(source))])
    beside = []
    for x in samples[128][:16]:
        order = np.argsort(np.square(small - np.float32(resized(x, (32, 32)))).mean((1, 2, 3)))[:3]
        beside.append([x, *(source[i] for i in order)])
    grid([a + b for a, b in zip(beside[::2], beside[1::2], strict=True)]).save(args.output / "nearest.png")


if __name__ == "__main__":
    main()
