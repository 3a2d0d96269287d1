"""The paper's Tables 1 to 6 and Fig. 4 by one command: all methods in one code, on equal data and budget.

It trains what a table compares (run_train.py), measures it (run_eval.py) and writes the tables into docs/TABLES.md,
beside the numbers that the paper prints. What is done is found again, so an interrupted call continues. Where the
paper's data sets lie in $ARBISCALE_DATA, Tables 2, 3, 4 and 6 are made of those at the published settings, which takes
GPU weeks; otherwise of photographs, at an equal budget for every method: 15 minutes of two CPU cores, or of a GPU 2.

Run: python benchmarks/tables.py --train photos/train --val photos/val --emoji emoji/val_512 [--only 2,5] [--budget gpu]
     (about three hours on 2 CPU cores; it needs the extra `eval`)
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import tables_decoder
import tables_generation
import tables_paper
import tables_plan
import tables_report as report
import tables_runs
import tables_speed
from speed_networks import machine

from arbiscale_jax.runtime import compile_cache, xla_flags

TABLES = ("1", "2", "3", "4", "5", "6")
SIZES = (128, 160, 192, 256, 384, 512)  # of Fig. 4; the first three are Table 1's
SEEDS = (0, 1, 2)
SHORT = " (5 steps from 0.3 T)"


def once(path: Path, compute: Callable[[], dict]) -> dict:
    """Returns what a file holds, or computes and writes it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = compute()
        path.write_text(json.dumps(content))
    return json.loads(path.read_text())


def table_1(args) -> dict[str, str]:
    real = "lsun_bedroom" if tables_plan.is_there("lsun_bedroom") and args.generator != "emoji" else args.emoji
    found = once(
        args.work / "eval" / "generation.json",
        lambda: tables_generation.generation(args.generator, real, SIZES, args.num, SEEDS),
    )
    about = (
        f"Model: `{args.generator}`. {found['real']} pictures on both sides, real ones that no training saw, reduced "
        f"to each size; {len(SEEDS)} seeds, standard errors over seeds; SelfSSIM of 50 latents per seed. The paper: "
        "50,000 pictures of LSUN bedroom, FID of Inception; its numbers are FID / precision / recall; SelfSSIM."
    )
    table = f"{about}\n\n{report.generated(found, SIZES[:3])}\n\n{report.printed(tables_paper.TABLE_1)}"
    figure = f"The same pictures as in Table 1, at more sizes.\n\n{report.curve(found)}"
    return {"Table 1: generation at three sizes": table, "Fig. 4: the curves over sizes": figure}


class Compared(NamedTuple):
    """What a table is made of."""

    plan: tables_plan.Plan
    folder: Path  # of the runs
    results: list[tuple[dict, str]]  # contents of results.json, with words that are added to the methods' names


def compared(table: str, args, known: tuple[str, tables_plan.Plan] | None = None) -> Compared:
    """Trains and measures what a table needs; the (name, plan) is that of `choose` unless another is given."""
    name, plan = known or tables_plan.choose(table, args.train, args.val)
    folder = args.work / "runs" if name == "photos" else args.work / name
    folder.mkdir(parents=True, exist_ok=True)
    for one in [] if args.as_is else tables_plan.needed(plan, table):
        tables_runs.train(one, folder, tables_plan.BUDGETS[args.budget])
    results = []
    for one in plan.measurements[table]:
        there = tuple(name for name in one.models if name == "bicubic" or tables_runs.is_done(name, folder))
        one = one._replace(models=there)
        content = tables_runs.measure(one, folder, args.work / "eval" / name)
        results.append((content, SHORT if one.name.endswith("_short") else ""))
    return Compared(plan, folder, results)


def upscaling_sections(title: str, metrics: Sequence[str], paper: str, found: Compared) -> dict[str, str]:
    """Makes the section of a table and that of its runs."""
    plan, folder, results = found
    pictures = results[0][0]["summary"][0]["images"]
    about = f"Data: {plan.about} ({pictures} pictures). Standard errors are over pictures, the seed is 0. "
    about += f"Cells: {' / '.join(m.upper().replace('_VGG', ' (VGG16)') for m in metrics)}."
    sections = {title: f"{about}\n\n{report.upscaling(results, metrics)}\n\n{paper}"}
    return sections | {f"Runs: {plan.about}": report.runs(tables_runs.describe(plan, folder))}


def table_2(args) -> dict[str, str]:
    paper = report.printed(tables_paper.TABLE_2, "printed: CelebA-HQ, trained on FFHQ")
    paper += "\n\n" + report.printed(tables_paper.TABLE_2_LSUN, "printed: LSUN at x16")
    title = "Table 2: scales within and beyond those of training"
    sections = upscaling_sections(title, ("psnr", "lpips"), paper, compared("2", args))
    for name, words in tables_plan.LSUN.items():
        if tables_plan.is_there(name):
            found = compared("2", args, (name, tables_plan.lsun_plan(name)))
            sections |= upscaling_sections(f"Table 2: x16, {words}", ("psnr", "lpips"), "", found)
    return sections


def table_3(args) -> dict[str, str]:
    paper = report.printed(tables_paper.TABLE_3, "printed: DIV2K (D), Flickr2K (F), PSNR / SSIM")
    metrics = ("psnr", "ssim", "lpips", "lpips_vgg")
    return upscaling_sections("Table 3: x4 in the wild", metrics, paper, compared("3", args))


def table_4(args) -> dict[str, str]:
    paper = report.printed(tables_paper.TABLE_4, "printed: DIV2K")
    title = "Table 4: scales far beyond those of training"
    return upscaling_sections(title, ("psnr", "lpips"), paper, compared("4", args))


def table_5(args) -> dict[str, str]:
    found = once(args.work / "eval" / "speed.json", lambda: tables_speed.measure(args.quick))
    about = (
        f"Machine: {machine()}, JAX {jax.__version__}, float32, one picture, the published networks of faces with "
        f"random weights: IDM with its 2,000 steps, the paper's method with {tables_speed.OUR_STEPS} of DDIM. One "
        "evaluation of the U-Net was timed and multiplied by the number of steps; E, D and rendering were timed as "
        'they are; "about" is by the number of pixels, where one evaluation takes more than a minute. Cells: frames '
        "per second (peak of memory)."
    )
    paper = report.printed(tables_paper.TABLE_5, "printed: frames per second on an RTX 4090")
    return {"Table 5: speed and memory": f"{about}\n\n{report.speeds(found)}\n\n{paper}"}


def table_6(args) -> dict[str, str]:
    key, compare = "Table 6: the decoder and the alignment", compared("6", args)
    paper = report.printed(tables_paper.TABLE_6_ALIGNMENT, "printed: alignment, CelebA-HQ")
    sections = upscaling_sections(key, ("psnr", "lpips"), paper, compare)
    plan, folder, results = compare
    data = args.val if folder == args.work / "runs" else "celeba_hq"

    def ablation() -> dict:
        pictures = tables_decoder.crops(data, 100)
        names = ("mlp_first_stage", "ours_first_stage")
        return {name: tables_decoder.reconstructions(folder / name, pictures) for name in names}

    found = once(args.work / "eval" / f"decoder_{folder.name}.json", ablation)
    about = (
        "PSNR of auto-encoders whose f_theta sees single latent cells (MLP) or the features of D (AE + MLP), trained "
        f"equally long ({plan.about}; four crops per picture)."
    )
    parts = [about, report.decoders(found), report.printed(tables_paper.TABLE_6_DECODER, "printed: reconstructions")]
    parts.append(sections[key])
    for content, words in results:
        parts += [f"Paired differences{words}:", report.differences(content, ("psnr", "lpips"))]
    return sections | {key: "\n\n".join(parts)}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TABLES), help="tables, separated by commas; default: all")
    parser.add_argument("--budget", choices=tables_plan.BUDGETS, default="cpu")
    parser.add_argument("--train", default="data/photos", help="folders of photographs, separated by commas")
    parser.add_argument("--val", default="data/photos_val", help="folder of photographs that no training saw")
    parser.add_argument("--generator", default="emoji", help="model or run of Table 1 and Fig. 4")
    parser.add_argument("--emoji", default="data/emoji_val_512", help="folder of real pictures for it")
    parser.add_argument("--num", type=int, default=200, help="of pictures in Table 1")
    parser.add_argument("--work", type=Path, default=Path("runs/tables"), help="folder of runs and measurements")
    parser.add_argument("--output", type=Path, default=Path("docs/TABLES.md"))
    parser.add_argument("--as-is", action="store_true", help="train nothing, and leave out what is not trained")
    parser.add_argument("--quick", action="store_true", help="narrow networks in Table 5, to rehearse")
    args = parser.parse_args(argv)
    args.only, args.work = args.only.split(","), args.work.resolve()
    if set(args.only) - set(TABLES):
        parser.error(f"--only takes some of {','.join(TABLES)}, got {','.join(args.only)}")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    compile_cache.enable()
    xla_flags.prefer_eigen()
    make = {"1": table_1, "2": table_2, "3": table_3, "4": table_4, "5": table_5, "6": table_6}
    report.write(args.output, {"Quoted from the paper, and why they are not run": report.quoted()})
    for table in args.only:
        report.write(args.output, make[table](args))
        print(f"wrote Table {table} to {args.output}", flush=True)


if __name__ == "__main__":
    main()
