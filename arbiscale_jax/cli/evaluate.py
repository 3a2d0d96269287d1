"""Measures models and interpolations: `python run_eval.py`, `arbiscale eval`."""

from pathlib import Path

from absl import flags

from arbiscale_jax.cli import files, program, sampling
from arbiscale_jax.errors import UserError
from arbiscale_jax.evaluation import names

USAGE = """
Measure how good upscaling or generation is.

Usage:
  {prog} --task upscale  --model bicubic,lanczos,photos --data DIR --scales 2,4,7.5 --metrics psnr,ssim,lpips
  {prog} --task upscale  --model runs/faces_align --data DIR --protocol fixed_lr --lr-size 16 --scales 5.3,7,10,12
  {prog} --task generate --model emoji --data DIR --sizes 128,160,192 --num 5000

--model: bundled models' names, folders of runs or exported models, and for upscaling nearest, bilinear, bicubic and
lanczos (Pillow's), between commas; the first is what the others are compared with, image by image. Results go to
--output: results.json (with every setting), results.csv, summary.csv and summary.md, pictures, and for generation
features/, from which an interrupted run goes on.
"""
_OF_TASK = {
    "upscale": (
        *("scales", "protocol", "lr-size", "border", "max-images", "max-side", "samples", "sheet"),
        *("start", "refine"),
    ),
    "generate": ("sizes", "num", "features", "inception-weights", "batch-size"),
}
TASKS = tuple(_OF_TASK)


def main(argv: list[str], prog: str = "arbiscale eval") -> None:
    """Runs the command with argv (without the program's name)."""
    flag_values = _define_flags()
    if program.wants_help(argv):
        program.print_help(USAGE.format(prog=prog), flag_values, _metrics_help())
        return
    program.parse(flag_values, argv)
    opts = {name: flag_values[name].value for name in flag_values}
    task = opts["task"]
    if not task:
        raise UserError("Give --task, upscale or generate.")
    other = TASKS[1 - TASKS.index(task)]
    for name in _OF_TASK[other]:
        if flag_values[name].present:
            raise UserError(f"--{name} belongs to the task {other}; leave it out of {task}.")
    opts["model"] = _parts(opts["model"])
    if not opts["model"]:
        raise UserError("Give --model: names or folders of models, or interpolations such as bicubic, between commas.")
    for name in opts["model"]:
        if opts["model"].count(name) > 1:
            raise UserError(f"--model names {name} twice; give each once.")
    sampling.check(opts)
    opts["output"] = Path(opts["output"])
    files.check_output_folder(opts["output"], 10**7)

    opts["metrics"] = _metrics(opts["metrics"], task)

    program.start_jax()
    if task == "upscale":
        from arbiscale_jax.cli import evaluate_upscale as run
    else:
        from arbiscale_jax.cli import evaluate_generate as run
    run.main(opts)


def _metrics(text: str | None, task: str) -> list[str]:
    """Raises: UserError for a metric that the task has not."""
    known = names.METRICS[task]
    found = _parts(text or names.DEFAULT[task])
    for name in found:
        if name not in known:
            hint = program.closest(name, list(known))
            raise UserError(f"There is no metric {name} of {task}{hint}; known are {', '.join(known)}.")
    return list(dict.fromkeys(found))


def _define_flags() -> flags.FlagValues:
    f = flags.FlagValues()
    flags.DEFINE_enum("task", None, TASKS, "What to measure.", flag_values=f)
    flags.DEFINE_string("model", None, "What to measure, between commas; see above.", flag_values=f)
    help_ = "Images to measure with: a folder (searched recursively), or the name of a data source: embedded."
    flags.DEFINE_string("data", None, help_, flag_values=f)
    flags.DEFINE_enum("split", "all", ["all", "train", "val"], "Which images of --data.", flag_values=f)
    flags.DEFINE_string("metrics", None, "What to compute, between commas; see below.", flag_values=f)
    flags.DEFINE_string("output", "out/eval", "Folder for the results.", flag_values=f)
    sampling.define(f, upscaling=True)

    flags.DEFINE_string("scales", "2,4,8", "Upscale: factors between commas.", flag_values=f)
    help_ = "Upscale: fixed_hr, LR is the image over the scale; fixed_lr, LR is --lr-size, the image is resized."
    flags.DEFINE_enum("protocol", "fixed_hr", ["fixed_hr", "fixed_lr"], help_, flag_values=f)
    flags.DEFINE_integer("lr-size", 48, "Upscale: side of the LR image in fixed_lr.", lower_bound=2, flag_values=f)
    help_ = "Upscale: pixels off each side that PSNR and SSIM leave out; default: the scale, rounded up."
    flags.DEFINE_integer("border", None, help_, lower_bound=0, flag_values=f)
    flags.DEFINE_integer("max-images", None, "Upscale: only the first so many images.", lower_bound=1, flag_values=f)
    flags.DEFINE_integer("max-side", None, "Upscale: cut larger images to this side.", lower_bound=16, flag_values=f)
    flags.DEFINE_integer("samples", 1, "Upscale: answers an input.", lower_bound=1, flag_values=f)
    flags.DEFINE_integer("sheet", 4, "Upscale: images on the contact sheets.", lower_bound=0, flag_values=f)

    help_ = "Generate: sizes between commas, HEIGHTxWIDTH or one side of a square; default: the first model's."
    flags.DEFINE_string("sizes", None, help_, flag_values=f)
    help_ = "Generate: number of images, at most that of the real ones, which is the default."
    flags.DEFINE_integer("num", None, help_, lower_bound=2, flag_values=f)
    help_ = "Generate: network of the distances: vgg (FD-VGG, KD-VGG; offline) or inception (FID, KID)."
    flags.DEFINE_enum("features", "vgg", ["vgg", "inception"], help_, flag_values=f)
    help_ = "Generate: file with FID's Inception weights, .pth or .safetensors; default: downloaded once."
    flags.DEFINE_string("inception-weights", "", help_, flag_values=f)
    flags.DEFINE_integer("batch-size", 16, "Generate: images at once, on all devices.", lower_bound=1, flag_values=f)
    return f


def _metrics_help() -> str:
    text = ""
    for task, metrics in names.METRICS.items():
        text += f"Metrics of {task} (default: {names.DEFAULT[task]}):\n"
        text += "".join(f"  {name}: {about}\n" for name, about in metrics.items())
    return text


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
