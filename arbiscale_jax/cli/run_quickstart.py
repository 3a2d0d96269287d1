"""Trains the quick start's stages of super-resolution and upscales a held-out photograph: `arbiscale quickstart`."""

import math
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from arbiscale_jax.cli import files, program, sample, sizes
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments.quickstart import STAGES, get_quickstart_config
from arbiscale_jax.images import save

USAGE = """
Train a small super-resolution model on scikit-image's photographs, then upscale a photograph that was held out.

Usage:
  {prog}
  {prog} --minutes 30 --runs runs/longer --scale 8

A second call skips the stages that are finished. To train them anew, delete their folders or give another --runs.
"""
_REDUCTION = 4  # the input is the held-out photograph, reduced by this factor


def main(argv: list[str], prog: str = "arbiscale quickstart") -> None:
    """Runs the command with the arguments argv, without the program's name."""
    f = flags.FlagValues()
    flags.DEFINE_float("minutes", 2.0, "Training time of each of the three stages, in minutes.", flag_values=f)
    program.define_path("runs", "runs", "The folder for the training runs quickstart_STAGE.", f)
    program.define_path("output", "out/quickstart", "The folder for the pictures.", f)
    flags.DEFINE_float("scale", 3.7, "Factor by which the photograph is upscaled.", flag_values=f)
    if program.wants_help(argv):
        program.print_help(USAGE.format(prog=prog), f)
        return
    program.parse(f, argv)
    opts = program.values(f)
    minutes, scale = opts["minutes"], opts["scale"]
    if not (math.isfinite(minutes) and minutes > 0):
        raise UserError(f"--minutes={minutes:g} is no training time; give a number above 0.")
    sizes.check_scale(scale)
    sizes.check_output(sizes.scaled((512, 512), scale, "the photograph"), sizes.MAX_OUTPUT_PIXELS)
    output = Path(opts["output"])
    files.check_output_folder(output, 10**8)

    program.start_jax()
    for number, stage in enumerate(STAGES, 1):
        _train(number, stage, Path(opts["runs"]), minutes)
    photo = output / "coffee.png"
    photo_pixels = _held_out_photo()
    save(photo, photo_pixels)
    print(f"Step 4 of 4: upscaling {photo}, a photograph that was held out of training, by {scale:g}.", flush=True)
    run = Path(opts["runs"]) / f"quickstart_{STAGES[-1]}"
    argv = ["--model", str(run), "--input", str(photo), "--scale", repr(scale), "--output", str(output), "--overwrite"]
    sample.main(argv, task="upscale")
    height, width = sizes.scaled(photo_pixels.shape[:2], scale, str(photo))
    nearest = Image.fromarray(photo_pixels).resize((width, height), Image.Resampling.NEAREST)
    save(output / "coffee_nearest.png", np.asarray(nearest))
    print(f"wrote {output / 'coffee_nearest.png'}, the same pixels merely enlarged, to compare with")


def _train(number: int, stage: str, runs: Path, minutes: float) -> None:
    """Trains one stage; a finished stage is skipped, and an interrupted one is continued."""
    from arbiscale_jax.training import train

    workdir = runs / f"quickstart_{stage}"
    print(f"Step {number} of 4: stage {stage}, {minutes:g} minutes of training in {workdir}.", flush=True)
    config = get_quickstart_config("sr", stage)
    config.train.minutes = minutes
    train(config, workdir)


def _held_out_photo() -> np.ndarray:
    """Returns the held-out photograph of a cup of coffee, reduced, as uint8 [h, w, 3]."""
    from arbiscale_jax import data

    source = data.make_source("embedded", split="val")
    index = next(i for i in range(len(source)) if "coffee" in source.name(i))
    photo = Image.fromarray(source[index])
    size = (photo.width // _REDUCTION, photo.height // _REDUCTION)
    return np.asarray(photo.resize(size, Image.Resampling.BICUBIC))  # Pillow antialiases
