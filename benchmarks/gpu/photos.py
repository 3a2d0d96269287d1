"""Trains the restoring photo model in a GPU's minutes: first stage, diffusion, alignment, then the judge.

Run: python benchmarks/gpu/photos.py --pack DIR --out $OUT --minutes 8 (benchmarks/gpu/README.md has the calls)
     python benchmarks/gpu/photos.py --rehearse (all of it at toy size on a CPU, in under two minutes)
     nice -n 19 python benchmarks/gpu/photos.py --pack DIR --out runs/photos --minutes 360 --machine cpu
A second call with the same --state goes on where the first one stopped.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import command

SHARES = {"first_stage": 0.14, "diffusion": 0.12, "align": 0.74}
RESERVE = 60.0  # seconds for the judge


def parts(args) -> list:
    """Builds the recipe's parts for a pack and a machine."""
    from kit import Part

    from arbiscale_jax.experiments import get_restoring_config

    roots, made = ",".join(map(str, sorted(args.pack.glob("photos_*")))), []
    for name, share in SHARES.items():
        config = get_restoring_config(name, args.machine).unlock()
        config.data.update(root=roots, val_source="folder", val_root=str(args.pack / "val"))
        config.data.synthesis.drawn_root = str(args.pack / "drawn")
        if args.rehearse:
            toy(config)
        made.append(Part(name, config.lock(), share))
    return made


def toy(config) -> None:
    """Makes a configuration small enough to rehearse on a CPU."""
    config.model.first_stage.update(ch=8, num_res_blocks=1)
    config.model.first_stage.subcell.update(blocks=1, features=6, convs=1)
    config.model.liif.hidden = (8, 8)
    config.model.unet.update(model_channels=8)
    config.data.synthesis.update(tile=96, tiles_per_image=2, lettered=2, sheets=1)
    with config.ignore_type():
        config.model.unet.num_res_blocks, config.model.unet.channel_mult = (1, 1), (1, 1.5)
        finer, plain = (16, 36, 2.5, 3.0, 1.0), (16, 40, 3.0, 4.0, 1.0)  # the first is rendered finer and reduced
        config.data.synthesis.variants = (finer,) if config.stage == "align" else (plain,)
    config.loss.update(disc_ch=4, lpips_shift=3)
    config.train.update(batch_size=2, warmup_steps=2)


def judge_model(args, model: Path) -> None:
    """Measures the model on the packed validation crops, and writes the sheets."""
    import judge
    from common import centre_crops, resized

    import arbiscale_jax as aj

    loaded = aj.load(model)
    methods = {"bicubic": resized, "ours": lambda lr, size: loaded.upscale(lr, size=size)}
    kinds, side = (("clean", "jpeg"), 64) if args.rehearse else (tuple(judge.KINDS), 384)
    rows = judge.judge(methods, centre_crops(str(args.pack / "val"), side), kinds, 4, args.state / "sheets")
    text = judge.table(rows)
    (args.out / "judge.txt").write_text(text + "\n")
    print(text)
    sheets = sorted((args.state / "sheets").glob("*.png"))
    command.join_sheets(sheets[:: max(1, len(sheets) // 10)], args.out / "sheet.jpg")


if __name__ == "__main__":
    command.run(__doc__, parts, judge_model, RESERVE)
