"""Upscales or generates images with a trained model: `python run_sample.py`, `arbiscale upscale | generate`."""

import json
from functools import partial
from importlib.metadata import version
from pathlib import Path

from absl import flags

import arbiscale_jax
from arbiscale_jax import images
from arbiscale_jax.cli import files, program, sampling, sizes, upscaling
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.progress import counted_progress

USAGE = {
    "upscale": """
  {prog}--input photo.jpg --scale 3.7 --output out/
  {prog}--model runs/quickstart_sr_align --input FOLDER --size 900x1600 --output out/
  {prog}--input a.jpg b.png --scale 4 --samples 3 --seed 1 --output out/""",
    "generate": """
  {prog}--num 16 --sizes 128,160,192x256 --output out/""",
}
DEFAULT_MODELS = {"upscale": "photos", "generate": "emoji"}  # names of bundled models
_OF_TASK = {
    "upscale": ("input", "scale", "size", "samples", *sampling.OF_UPSCALING, "box", "max-pixels"),
    "generate": ("num", "sizes"),
}


def main(argv: list[str], prog: str = "python run_sample.py", task: str | None = None) -> None:
    """Runs the command with the arguments argv, without the program's name; if `task` is None, --task gives it."""
    flag_values = _define_flags(task)
    if program.wants_help(argv):
        _print_help(flag_values, prog, task)
        return
    inputs = program.parse(flag_values, argv, positional=task != "generate")
    opts = program.values(flag_values)
    task = task or opts["task"]
    if not task:
        raise UserError("Give --task, upscale or generate.")
    for other in set(_OF_TASK) - {task}:
        for name in _OF_TASK[other]:
            if name in flag_values and flag_values[name].present:
                raise UserError(f"--{name} belongs to the task {other}; leave it out of {task}.")
    opts["model"] = opts["model"] or DEFAULT_MODELS[task]
    sampling.check(opts)
    if Path(opts["output"]).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"):
        raise UserError(f"--output={opts['output']} looks like a file; give a folder, the images are named in it.")
    if task == "upscale":
        program.one_of_a_kind(flag_values, "scale", "size")
        program.interruptible(partial(_upscale, opts, [*(opts["input"] or ()), *inputs]))
    elif inputs:
        raise UserError(f"The argument {inputs[0]!r} belongs to no flag; generate takes flags only.")
    else:
        program.interruptible(partial(_generate, opts))


def _define_flags(task: str | None) -> flags.FlagValues:
    """Returns the flags of one task, or of both tasks with --task."""
    f = flags.FlagValues()
    if task is None:
        flags.DEFINE_enum("task", None, list(USAGE), "What to do: upscale images, or generate new ones.", flag_values=f)
    own = [DEFAULT_MODELS[task]] if task else [f"{model} to {one}" for one, model in DEFAULT_MODELS.items()]
    help_ = f"A bundled model's name, or the folder of a run or an exported model; default: {', '.join(own)}."
    flags.DEFINE_string("model", None, help_, flag_values=f)
    flags.DEFINE_string("output", "out", "The folder for the images and sample.json.", flag_values=f)
    if task != "generate":
        help_ = "Upscale: an image or a folder of images; may be repeated, and further arguments are inputs too."
        flags.DEFINE_multi_string("input", None, help_, flag_values=f)
        flags.DEFINE_float("scale", None, "Upscale: a factor above 0; default: 4.", flag_values=f)
        flags.DEFINE_string("size", None, "Upscale: HEIGHTxWIDTH of the output, in place of --scale.", flag_values=f)
        help_ = "Upscale: number of different answers per image, whose files end in _0, _1, ...; default: one answer."
        flags.DEFINE_integer("samples", None, help_, lower_bound=1, flag_values=f)
        help_ = "Upscale: TOP,LEFT,HEIGHT,WIDTH in pixels of the output, to render this window of it alone."
        flags.DEFINE_string("box", None, help_, flag_values=f)
        help_ = "Upscale: largest number of pixels of an input."
        flags.DEFINE_integer("max-pixels", images.MAX_PIXELS, help_, lower_bound=1, flag_values=f)
    if task != "upscale":
        flags.DEFINE_integer("num", 4, "Generate: number of images.", lower_bound=1, flag_values=f)
        help_ = "Generate: sizes to render each image at, HEIGHTxWIDTH or the side of a square, separated by commas."
        flags.DEFINE_string("sizes", None, help_ + " Default: the model's.", flag_values=f)
    sampling.define(f, upscaling=task != "generate")
    help_ = "The type in which the networks compute; default: bfloat16 on a GPU, float32 elsewhere."
    flags.DEFINE_enum("dtype", None, ["float32", "tensorfloat32", "bfloat16"], help_, flag_values=f)
    help_ = "Largest number of pixels of an output, or of the window that --box names."
    flags.DEFINE_integer("max-output-pixels", sizes.MAX_OUTPUT_PIXELS, help_, lower_bound=1, flag_values=f)
    return f


def _print_help(flag_values: flags.FlagValues, prog: str, task: str | None) -> None:
    what = {"upscale": "Enlarge images by any factor.", "generate": "Generate images of any size."}
    tasks = [task] if task else list(USAGE)
    examples = "".join(USAGE[name].format(prog=f"{prog} " + ("" if task else f"--task {name} ")) for name in tasks)
    program.print_help(
        f"{' '.join(what[name] for name in tasks)}\n\nUsage:{examples}\n\n"
        "Writes PNG files to --output, and sample.json with all settings that made them.",
        flag_values,
    )


def _upscale(opts: dict, given: list[str]) -> None:
    """Checks everything that can be checked without a model, then upscales."""
    if not given:
        raise UserError("Give --input, an image file or a folder of images.")
    box = sizes.parse_box(opts["box"]) if opts["box"] else None
    inputs, output = upscaling.find_inputs(opts, given, box), Path(opts["output"])
    upscaling.check_outputs(output, inputs, upscaling.suffixes(opts, box), box)
    model = _load(opts)
    written = upscaling.run(model, opts, inputs, box)
    resolved = dict(task="upscale", inputs=[str(one.path) for one in inputs], output_sizes=[one.size for one in inputs])
    scale = None if opts["size"] else upscaling.scale_of(opts)
    _finish(opts, model, resolved | dict(scale=scale, samples=opts["samples"], box=box), written)


def _generate(opts: dict) -> None:
    """Samples one latent per image and renders it at every size."""
    wanted = sizes.parse_sizes(opts["sizes"], "--sizes") if opts["sizes"] else None
    output = Path(opts["output"])

    def check(wanted):
        for size in wanted:
            sizes.check_output(size, opts["max-output-pixels"])
        files.check_output_folder(output, sum(3 * opts["num"] * height * width for height, width in wanted))

    if wanted:
        check(wanted)
    model = _load(opts)
    if not wanted:
        side = model.config["sampling"]["size"]
        check(wanted := [(side, side)])
    written = []
    with counted_progress(opts["num"] * (1 + len(wanted))) as advance:
        advance(0, "denoising")
        done = partial(upscaling.advance_by, advance, opts["num"])
        z = model.generate_latent(opts["num"], seed=opts["seed"], progress=done, **sampling.given(opts))  # n h w c
        for i in range(opts["num"]):
            for size in wanted:
                advance(0, f"image {i}: rendering {size[0]} x {size[1]}")
                written.append(output / f"sample_{i:03d}_{size[0]}x{size[1]}.png")
                files.write_rows(written[-1], size, model.render_rows(z[i], size))
                advance(1)
    _finish(opts, model, dict(task="generate", num=opts["num"], sizes=wanted), written)


def _load(opts: dict):
    """Starts JAX and loads the model."""
    program.start_jax()
    return arbiscale_jax.load(opts["model"], dtype=opts["dtype"] or program.default_dtype())


def _finish(opts: dict, model, resolved: dict, written: list[Path]) -> None:
    """Writes sample.json, with the model's settings for flags that were not given, and prints the results' names."""
    used = {name: value for name, value in dict(model.config["sampling"]).items() if name in sampling.NAMES}
    used |= sampling.given(opts)
    resolved |= dict(model=opts["model"], seed=opts["seed"], **used, outputs=[path.name for path in written])
    versions = {"arbiscale_jax": arbiscale_jax.__version__, "jax": version("jax")}
    resolved |= dict(versions=versions, model_config=model.config)
    content = json.dumps(resolved, indent=2, default=_to_dict)
    files.write_bytes(Path(opts["output"]) / "sample.json", content.encode() + b"\n")
    for path in written:
        print(f"wrote {path}")


def _to_dict(value):
    """Converts a ConfigDict so that json can write it."""
    return value.to_dict()
