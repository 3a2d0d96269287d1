"""Makes a prepared data set from folders of images: `python -m arbiscale_jax.data.prepare`, `arbiscale prepare`."""

import os

from absl import flags

from arbiscale_jax.cli import program
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.progress import counted_progress

USAGE = """
Resize folders of images once and write them as ArrayRecord with TFDS metadata, which training reads fast.

Usage:
  {prog} --input data/ffhq/images1024x1024 --output data/ffhq_256 --size 256
  {prog} --input DIV2K_train_HR,Flickr2K_HR --output data/df2k_480 --size 480 --fit tiles
  {prog} --input val --output data/mine_256 --size 256 --split validation

If a call is interrupted, repeat it to continue. Train on the result with
--config.data.source=prepared --config.data.root=OUTPUT; sets named like the data sets of the experiments
(NAME_SIZE below data.root) are found without these flags.
"""


def main(argv: list[str], prog: str = "arbiscale prepare") -> None:
    """Runs the command with the arguments argv, without the program's name."""
    f = flags.FlagValues()
    flags.DEFINE_string("input", None, "Folder of images, or several, separated by commas. Required.", flag_values=f)
    flags.DEFINE_string("output", None, "Folder of the prepared set. Required.", flag_values=f)
    flags.DEFINE_integer("size", 0, "Side in pixels of the images that --fit makes.", flag_values=f)
    flags.DEFINE_string(
        "fit",
        "crop",
        "How images are fitted to --size. crop: the shorter side is resized to --size and the central square is cut "
        "out; aspect: the shorter side is resized and nothing is cut off; tiles: images are cut into overlapping "
        "squares of --size without resizing; keep: images stay as they are.",
        flag_values=f,
    )
    flags.DEFINE_string("split", "train", "Name of the split: train, validation, ...", flag_values=f)
    flags.DEFINE_string("split_file", "", "Text file of the images' names, one per line; default: all.", flag_values=f)
    flags.DEFINE_string("format", "png", "File format: png (exact) or jpeg (small).", flag_values=f)
    flags.DEFINE_integer("quality", 95, "Quality of JPEG files.", flag_values=f)
    flags.DEFINE_integer("processes", os.cpu_count(), "Number of processes that share the work.", flag_values=f)
    if program.wants_help(argv):
        program.print_help(USAGE.format(prog=prog), f)
        return
    program.parse(f, argv)
    opts = program.values(f)
    program.at_home(opts, "input", "output", "split_file")
    if not (opts["input"] and opts["output"]):
        raise UserError("Give both --input, a folder of images, and --output, the folder of the prepared set.")
    from arbiscale_jax.data.prepare import prepare
    from arbiscale_jax.data.shards import Storage

    storage = Storage(opts["size"], opts["fit"], opts["format"], opts["quality"])
    options = {name: opts[name] for name in ("split", "split_file", "processes")}
    with counted_progress(None, "preparing") as advance:
        before = 0

        def progress(done: int, total: int) -> None:
            nonlocal before
            advance(done - before, total=total)
            before = done

        out = prepare(opts["input"], opts["output"], storage, progress=progress, **options)
    print(
        f"{opts['output']} ({options['split']}): {out['records']} records of {out['images']} images in "
        f"{out['shards']} shards, {out['bytes'] / 1e6:.1f} MB"
    )
    for name, why in out["broken"]:
        print(f"left out: {name}: {why}")
