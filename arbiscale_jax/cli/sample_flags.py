"""Defines the flags of `upscale` and `generate`."""

from absl import flags

from arbiscale_jax import images
from arbiscale_jax.cli import generating, interpolating, picture_files, program, result_names, sampling, sizes

DEFAULT_MODELS = {"upscale": "photos", "generate": "emoji"}  # names of bundled models
OF_TASK = {  # the flags that only one of the tasks has
    "upscale": (
        *("input", "scale", "size", "long-side", "samples", *sampling.OF_UPSCALING, "box", "max-pixels"),
        *("first-frame", "no-metadata"),
    ),
    "generate": ("num", "sizes", "interpolate", "frames", *sampling.OF_GENERATING),
}


def define(task: str | None) -> flags.FlagValues:
    """Returns the flags of one task, or of both tasks with --task."""
    f = flags.FlagValues()
    if task is None:
        flags.DEFINE_enum(
            "task", None, list(OF_TASK), "What to do: upscale images, or generate new ones.", flag_values=f
        )
    own = [DEFAULT_MODELS[task]] if task else [f"{model} to {one}" for one, model in DEFAULT_MODELS.items()]
    help_ = f"A bundled model's name, or the folder of a run or an exported model; default: {', '.join(own)}."
    program.define_path("model", None, help_, f)
    help_ = "The folder for the images, sample.json and journal.jsonl, or the name of the one result, such as big.png."
    program.define_path("output", "out", help_, f)
    _define_results(f, task)
    if task != "generate":
        _define_inputs(f)
    if task != "upscale":
        flags.DEFINE_integer("num", 4, "Generate: number of images.", lower_bound=1, flag_values=f)
        help_ = "Generate: sizes to render each image at, HEIGHTxWIDTH or the side of a square, separated by commas."
        flags.DEFINE_string("sizes", None, help_ + " Default: the model's.", flag_values=f)
        help_ = (
            "Generate: seeds, separated by commas, between whose images an animation goes, in place of --num and "
            "--seed; the last may be the first again, so that it goes round."
        )
        flags.DEFINE_string("interpolate", None, help_, flag_values=f)
        help_ = f"Generate: number of frames of --interpolate; default: {interpolating.FRAMES}."
        flags.DEFINE_integer("frames", None, help_, lower_bound=2, flag_values=f)
    sampling.define(f, upscaling=task != "generate", generating=task != "upscale")
    help_ = "The type in which the networks compute; default: bfloat16 on a GPU, float32 elsewhere."
    flags.DEFINE_enum("dtype", None, ["float32", "tensorfloat32", "bfloat16"], help_, flag_values=f)
    help_ = "Largest number of pixels of an output, or of the window that --box names."
    flags.DEFINE_integer("max-output-pixels", sizes.MAX_OUTPUT_PIXELS, help_, lower_bound=1, flag_values=f)
    return f


def _define_results(f: flags.FlagValues, task: str | None) -> None:
    """Defines the flags that say how results are called and written."""
    known = (
        result_names.FIELDS if task != "generate" else {name: result_names.FIELDS[name] for name in generating.FIELDS}
    )
    help_ = (
        "The pattern of the results' names, such as {stem}_x{scale}, with fields in braces: "
        + "; ".join(f"{name}, {about}" for name, about in known.items())
        + ". Numbers take a format, such as {index:03d}. Default: a name that says what was asked for."
    )
    flags.DEFINE_string("name", None, help_, flag_values=f)
    help_ = "Keep results that are there already, whatever made them."
    flags.DEFINE_bool("skip-existing", False, help_, flag_values=f)
    help_ = (
        "Replace results that are there already, unless the journal of --output says that the same options made them "
        "from the same input."
    )
    flags.DEFINE_bool("overwrite", False, help_, flag_values=f)
    choices = [*picture_files.CHOICES, *([picture_files.SAME] if task != "generate" else [])]
    help_ = "The format of the results; default: png, and for what has several frames or pages the input's own."
    if task != "generate":
        help_ += " same: the input's own, or png where that is not written."
    flags.DEFINE_enum("format", None, choices, help_, flag_values=f)
    help_ = "The quality of jpg (default 95), webp (95; 100 is without loss) and avif (90)."
    flags.DEFINE_integer("quality", None, help_, lower_bound=1, upper_bound=100, flag_values=f)


def _define_inputs(f: flags.FlagValues) -> None:
    """Defines the flags of upscaling alone, except those of sampling."""
    help_ = (
        "Upscale: an image, or a folder, which is searched with all folders below it; may be repeated, and further "
        "arguments are inputs too."
    )
    program.define_path("input", None, help_, f, many="repeat")
    flags.DEFINE_float("scale", None, "Upscale: a factor above 0; default: 4.", flag_values=f)
    help_ = (
        "Upscale: HEIGHTxWIDTH of the output, or its shorter side alone, which keeps the proportion; in place of "
        "--scale."
    )
    flags.DEFINE_string("size", None, help_, flag_values=f)
    help_ = "Upscale: the longer side of the output, which keeps the proportion; in place of --scale."
    flags.DEFINE_integer("long-side", None, help_, lower_bound=1, upper_bound=10**9, flag_values=f)
    help_ = "Upscale: number of different answers per image, whose files end in _0, _1, ...; default: one answer."
    flags.DEFINE_integer("samples", None, help_, lower_bound=1, flag_values=f)
    help_ = "Upscale: TOP,LEFT,HEIGHT,WIDTH in pixels of the output, to render this window of it alone."
    flags.DEFINE_string("box", None, help_, flag_values=f)
    help_ = "Upscale: largest number of pixels of an input."
    flags.DEFINE_integer("max-pixels", images.MAX_PIXELS, help_, lower_bound=1, flag_values=f)
    help_ = "Upscale: the first frame or page alone of what has several."
    flags.DEFINE_bool("first-frame", False, help_, flag_values=f)
    help_ = "Upscale: leave out what the input says besides its pixels: profile, EXIF, resolution, text."
    flags.DEFINE_bool("no-metadata", False, help_, flag_values=f)
