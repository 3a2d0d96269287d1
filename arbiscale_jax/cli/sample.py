"""Upscales or generates images with a trained model: `python run_sample.py`, `arbiscale upscale | generate`."""

import time
from functools import partial

from absl import flags

import arbiscale_jax
from arbiscale_jax.cli import (
    destination,
    files,
    generating,
    inputs,
    interpolating,
    model_settings,
    picture_files,
    planning,
    program,
    result_names,
    sample_flags,
    sample_record,
    sampling,
    sizes,
    upscaling,
)
from arbiscale_jax.cli.destination import AGAIN, MAKE
from arbiscale_jax.cli.journal import Journal
from arbiscale_jax.errors import UserError

OF_REQUEST = ("prompt", "canvas", "coarse")  # flags of generating that are no settings of the model
USAGE = {
    "upscale": """
  {prog}--input photo.jpg --scale 3.7 --output out/
  {prog}--model runs/quickstart_sr_align --input FOLDER --size 900x1600 --output out/
  {prog}--input a.jpg b.png --scale 4 --samples 3 --seed 1 --output out/
  {prog}--input FOLDER --long-side 3840 --name '{{stem}}_{{size}}' --output out/ --skip-existing
  {prog}--input photo.jpg --output large.png""",
    "generate": """
  {prog}--num 16 --sizes 128,160,192x256 --output out/
  {prog}--model MODEL --prompt 'style=noto cat' --guidance 2 --output out/
  {prog}--interpolate 0,7,0 --frames 49 --sizes 256 --output out/""",
}


def main(argv: list[str], prog: str = "python run_sample.py", task: str | None = None) -> int:
    """Runs the command.

    Args:
      argv: the arguments, without the program's name.
      prog: what the help calls the program.
      task: upscale or generate; if it is None, --task gives it.

    Returns:
      The exit code: 1 if inputs were left out, and 0 otherwise.
    """
    flag_values = sample_flags.define(task)
    if program.wants_help(argv):
        _print_help(flag_values, prog, task)
        return 0
    further = program.parse(flag_values, argv, positional=task != "generate")
    opts = program.values(flag_values)
    task = task or opts["task"]
    if not task:
        raise UserError("Give --task, upscale or generate.")
    for other in set(sample_flags.OF_TASK) - {task}:
        for name in sample_flags.OF_TASK[other]:
            if name in flag_values and flag_values[name].present:
                raise UserError(f"--{name} belongs to the task {other}; leave it out of {task}.")
    opts["model"] = opts["model"] or sample_flags.DEFAULT_MODELS[task]
    sampling.check(opts)
    program.one_of_a_kind(flag_values, "skip-existing", "overwrite")
    if task == "upscale":
        program.one_of_a_kind(flag_values, "scale", "size", "long-side")
        given = [*(opts["input"] or ()), *map(program.expand, further)]
        return program.interruptible(partial(_upscale, opts, given))
    if further:
        raise UserError(f"The argument {further[0]!r} belongs to no flag; generate takes flags only.")
    if opts["format"] == picture_files.SAME:
        raise UserError("--format=same belongs to the task upscale; give another format.")
    if opts["interpolate"] is not None:
        for name in ("num", "seed"):
            if flag_values[name].present:
                raise UserError(f"--{name} says which images are made, and --interpolate too; leave one of them out.")
        opts = interpolating.settle(opts)
    elif opts["frames"] is not None:
        raise UserError("--frames counts those of --interpolate; give --interpolate=SEED,SEED too, or leave it out.")
    return program.interruptible(partial(_generate, opts))


def _print_help(flag_values: flags.FlagValues, prog: str, task: str | None) -> None:
    what = {"upscale": "Enlarge images by any factor.", "generate": "Generate images of any size."}
    tasks = [task] if task else list(USAGE)
    examples = "".join(USAGE[name].format(prog=f"{prog} " + ("" if task else f"--task {name} ")) for name in tasks)
    program.print_help(
        f"{' '.join(what[name] for name in tasks)}\n\nUsage:{examples}\n\n"
        "Writes pictures to --output, sample.json with all settings that made them, and journal.jsonl, with which the "
        "same command goes on if it was stopped.\n\nThe exit code is 0; 1 if inputs could not be read and were left "
        "out; 2 after a mistake or an error, which one sentence names; 130 after Ctrl-C.",
        flag_values,
    )


def _upscale(opts: dict, given: list[str]) -> int:
    """Checks everything that can be checked without a model, then upscales, and returns the exit code."""
    began = time.monotonic()
    if not given:
        raise UserError("Give --input, an image file or a folder of images.")
    box = sizes.parse_box(opts["box"]) if opts["box"] else None
    target, where = sizes.parse_target(opts), destination.parse(opts)
    result_names.check_pattern(planning.pattern(opts, box), result_names.FIELDS)
    picture_files.check_options(opts, where.single)
    found = inputs.find(given, picture_files.extensions(), picture_files.foreign_extensions(), where.folder)
    settings = model_settings.read(opts, "upscale")
    options = {"--scale": target.scale, "--size": target.size or target.short, "--long-side": target.long}
    options |= {"--samples": opts["samples"], "--box": box}
    options |= {f"--{name}": opts[name] for name in ("first-frame", "no-metadata")}
    journal = Journal(None if where.single else where.folder, options | _shared_options(opts, settings))
    plan = planning.make_plan(opts, found, where, journal, box)
    files.check_output_folder(where.folder, planning.bytes_to_write(plan))
    results = [one for some in plan.results for one in some]
    destination.clean(where, results)
    lost = upscaling.run(_load(opts), opts, plan, journal) if plan.count(MAKE) else []
    if plan.count(MAKE) or plan.count(AGAIN):
        journal.end()
    left_out = [*plan.left_out, *lost]
    resolved = dict(task="upscale", scale=target.scale, samples=opts["samples"], box=box, left_out=left_out)
    sample_record.write(opts, settings, where, journal, resolved, results)
    sample_record.summarize(where, journal, results, len(left_out), began)
    return 1 if left_out else 0


def _generate(opts: dict) -> int:
    """Checks everything that can be checked without a model, then generates, and returns the exit code."""
    began, where = time.monotonic(), destination.parse(opts)
    maker = generating if opts["interpolate"] is None else interpolating
    if opts["name"] is not None:
        result_names.check_pattern(opts["name"], generating.FIELDS)
    picture_files.check_options(opts, where.single)
    if maker is generating and where.single:
        picture_files.check_still(where.single)
    maker.find_sizes(opts, (1, 1))
    settings = model_settings.read(opts, "generate")
    canvas = sampling.given(opts).get("canvas")
    if canvas:
        sizes.check_output(canvas, opts["max-output-pixels"])
    wanted = maker.find_sizes(opts, canvas or (settings.config["sampling"]["size"],) * 2)
    options = _shared_options(opts, settings)
    if maker is interpolating:
        options |= {"--seed": None, "--interpolate": opts["interpolate"], "--frames": opts["frames"]}
    journal = Journal(None if where.single else where.folder, options)
    of_each = maker.name_results(opts, wanted, where, journal.key)
    results = [one for some in of_each for one in some]
    actions = generating.decide(opts, where, of_each, journal)
    destination.clean(where, results)
    made = [one for one, action in zip(results, actions, strict=True) if action == MAKE]
    if made:
        names = {one.name for one in made}
        todo = [[one for one in some if one.name in names] for some in of_each]
        maker.run(_load(opts), opts, where, todo, journal)
    if made or AGAIN in actions:
        journal.end()
    resolved = dict(task="generate", num=opts["num"], sizes=wanted)
    if maker is interpolating:
        resolved |= dict(num=1, interpolate=opts["interpolate"], frames=opts["frames"])
    resolved |= {name: opts[name] for name in OF_REQUEST if opts[name] is not None}
    sample_record.write(opts, settings, where, journal, resolved, results)
    sample_record.summarize(where, journal, results, 0, began)
    return 0


def _shared_options(opts: dict, settings: model_settings.Settings) -> dict:
    """Returns what the bytes of a result depend on in both tasks; the journal compares it."""
    options = {
        "the model": model_settings.fingerprint(settings.folder),
        "--seed": opts["seed"],
        "--dtype": opts["dtype"],
        "--format": opts["format"],
        "--quality": opts["quality"],
    }
    options |= {f"--{name}": value for name, value in settings.sampling.items()}
    options |= {f"--{name}": opts[name] for name in OF_REQUEST if opts.get(name) is not None}
    return options | {"the version of arbiscale_jax": arbiscale_jax.__version__}


def _load(opts: dict):
    """Starts JAX and loads the model."""
    program.start_jax()
    return arbiscale_jax.load(opts["model"], dtype=opts["dtype"] or program.default_dtype())
