"""Measures models and interpolations: `python run_eval.py`, `arbiscale eval`."""

from pathlib import Path

from absl import flags

from arbiscale_jax.cli import files, model_settings, program, sampling
from arbiscale_jax.errors import UserError
from arbiscale_jax.evaluation import names

USAGE = """
Measure how good upscaling or generation is.

Usage:
  {prog} --task upscale  --model bicubic,lanczos,photos --data DIR --scales 2,4,7.5 --metrics psnr,ssim,lpips
  {prog} --task upscale  --model runs/faces_align --data DIR --protocol fixed_lr --lr-size 16 --scales 5.3,7,10,12
  {prog} --task upscale  --model bicubic,photos --data DIV2K_valid_HR --lr DIV2K_valid_LR_bicubic/X4
  {prog} --task generate --model emoji --data DIR --sizes 128,160,192 --num 5000
  {prog} --task generate --model emoji --data VAL --truth 256=VAL_256,512=VAL_512 --sizes 128,192,256,512 \
      --train TRAIN --metrics fd,kd,patch_fd,precision,recall,selfssim,nearest --sampler dpmpp --steps 20 --eta 0

--model takes names of bundled models, folders of runs or exported models, and for upscaling also Pillow's nearest,
bilinear, bicubic and lanczos, separated by commas; the others are compared with the first one, image by image. Results
are written to --output: results.json (with every setting), results.csv, summary.csv, summary.md, pictures, and for
generation features/, from which an interrupted run continues.
"""
_OF_TASK = {
    "upscale": (
        *("lr", "scales", "protocol", "lr-size", "border", "max-images", "max-side", "samples", "sheet"),
        *sampling.OF_UPSCALING,
    ),
    "generate": (
        *("sizes", "num", "truth", "train", "patch", "features", "inception-weights", "batch-size"),
        *sampling.OF_GENERATING,
    ),
}
TASKS = tuple(_OF_TASK)
_OF_REDUCTION = ("scales", "protocol", "lr-size", "max-side")  # flags that make no sense with given LR images


def main(argv: list[str], prog: str = "arbiscale eval") -> None:
    """Runs the command with the arguments argv, without the program's name."""
    flag_values = _define_flags()
    if program.wants_help(argv):
        program.print_help(USAGE.format(prog=prog), flag_values, _metrics_help())
        return
    program.parse(flag_values, argv)
    opts = program.values(flag_values)
    task = opts["task"]
    if not task:
        raise UserError("Give --task, upscale or generate.")
    other = TASKS[1 - TASKS.index(task)]
    for name in _OF_TASK[other]:
        if flag_values[name].present:
            raise UserError(f"--{name} belongs to the task {other}; leave it out of {task}.")
    if opts["lr"]:
        for name in _OF_REDUCTION:
            if flag_values[name].present:
                raise UserError(f"--{name} says how LR images are made, and --lr gives them; leave one out.")
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
    _check_models(opts, task)

    program.start_jax()
    if task == "upscale":
        from arbiscale_jax.cli import evaluate_upscale as run
    else:
        from arbiscale_jax.cli import evaluate_generate as run
    run.main(opts)


def _check_models(opts: dict, task: str) -> None:
    """Raises UserError if a model cannot do the task or be sampled with the flags; no image or weight is read."""
    from arbiscale_jax.evaluation.protocols import INTERPOLATIONS

    for name in opts["model"]:
        if name not in INTERPOLATIONS:
            model_settings.read(opts | {"model": name}, task)


def _metrics(text: str | None, task: str) -> list[str]:
    """Returns the metrics to compute, and raises UserError for one that the task does not have."""
    known = names.METRICS[task]
    found = _parts(text or names.DEFAULT[task])
    for name in found:
        if name not in known:
            hint = program.closest(name, list(known))
            raise UserError(f"There is no metric {name} of {task}{hint}; known are {', '.join(known)}.")
    return list(dict.fromkeys(found))


def _define_flags() -> flags.FlagValues:
    f = flags.FlagValues()
    flags.DEFINE_enum("task", None, TASKS, "The task to measure.", flag_values=f)
    program.define_path("model", None, "The models to measure, separated by commas; see above.", f, many="commas")
    help_ = "Images to measure with: a folder, which is searched recursively, or a data source such as embedded."
    program.define_path("data", None, help_, f)
    flags.DEFINE_enum("split", "all", ["all", "train", "val"], "Which images of --data to use.", flag_values=f)
    flags.DEFINE_string("metrics", None, "The metrics to compute, separated by commas; see below.", flag_values=f)
    program.define_path("output", "out/eval", "The folder for the results.", f)
    sampling.define(f, upscaling=True, generating=True)

    help_ = (
        "Upscale: a folder of the LR images of --data, which have the same names, or names with a suffix such as x4; "
        "the scale of each pair is that of its sides."
    )
    program.define_path("lr", None, help_, f)
    flags.DEFINE_string("scales", "2,4,8", "Upscale: factors, separated by commas.", flag_values=f)
    help_ = (
        "Upscale: in fixed_hr the LR image is the image reduced by the scale; in fixed_lr it has the side --lr-size, "
        "and the truth is the image's central square resized to the scale times that."
    )
    flags.DEFINE_enum("protocol", "fixed_hr", ["fixed_hr", "fixed_lr"], help_, flag_values=f)
    flags.DEFINE_integer("lr-size", 48, "Upscale: the side of the LR image in fixed_lr.", lower_bound=2, flag_values=f)
    help_ = "Upscale: pixels at each side that PSNR and SSIM leave out; default: the scale, rounded up."
    flags.DEFINE_integer("border", None, help_, lower_bound=0, flag_values=f)
    flags.DEFINE_integer("max-images", None, "Upscale: largest number of images to use.", lower_bound=1, flag_values=f)
    flags.DEFINE_integer("max-side", None, "Upscale: cut larger images to this side.", lower_bound=16, flag_values=f)
    flags.DEFINE_integer("samples", 1, "Upscale: number of answers per input.", lower_bound=1, flag_values=f)
    flags.DEFINE_integer("sheet", 4, "Upscale: number of images on a contact sheet.", lower_bound=0, flag_values=f)

    help_ = "Generate: sizes, HEIGHTxWIDTH or the side of a square, separated by commas; default: the first model's."
    flags.DEFINE_string("sizes", None, help_, flag_values=f)
    help_ = "Generate: number of images, by default and at most the number of real images."
    flags.DEFINE_integer("num", None, help_, lower_bound=2, flag_values=f)
    help_ = (
        "Generate: folders of true images of a size, in place of those of --data resized to it, as SIZE=FOLDER "
        "separated by commas."
    )
    flags.DEFINE_string("truth", None, help_, flag_values=f)
    help_ = "Generate: the pictures that the model was trained on, for the metric nearest."
    program.define_path("train", None, help_, f)
    help_ = "Generate: the side of the windows of patch_fd, at sizes larger than that."
    flags.DEFINE_integer("patch", 128, help_, lower_bound=16, flag_values=f)
    help_ = "Generate: the network for distances, vgg (FD-VGG, KD-VGG; no download) or inception (FID, KID)."
    flags.DEFINE_enum("features", "vgg", ["vgg", "inception"], help_, flag_values=f)
    help_ = "Generate: a file with FID's Inception weights, .pth or .safetensors; by default they are downloaded once."
    program.define_path("inception-weights", "", help_, f)
    flags.DEFINE_integer("batch-size", 16, "Generate: images at a time, on all devices.", lower_bound=1, flag_values=f)
    return f


def _metrics_help() -> str:
    text = ""
    for task, metrics in names.METRICS.items():
        text += f"Metrics of {task} (default: {names.DEFAULT[task]}):\n"
        text += "".join(f"  {name}: {about}\n" for name, about in metrics.items())
    return text


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
