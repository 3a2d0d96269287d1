"""Makes a prepared set of folders of images: `python -m arbiscale_jax.data.prepare`, `arbiscale prepare`."""

import os
from contextlib import contextmanager

from absl import flags

from arbiscale_jax.cli import program
from arbiscale_jax.errors import UserError

USAGE = """
Resize folders of images once and write them as ArrayRecord with TFDS metadata, which training reads fast.

Usage:
  {prog} --input data/ffhq/images1024x1024 --output data/ffhq_256 --size 256
  {prog} --input DIV2K_train_HR,Flickr2K_HR --output data/df2k_480 --size 480 --fit tiles
  {prog} --input val --output data/mine_256 --size 256 --split validation

An interrupted call goes on when it is repeated. Train on the result with
--config.data.source=prepared --config.data.root=OUTPUT; sets named like the data sets of the experiments
(NAME_SIZE below data.root) are found by themselves.
"""


def main(argv: list[str], prog: str = "arbiscale prepare") -> None:
    """Runs the command with argv (without the program's name)."""
    f = flags.FlagValues()
    flags.DEFINE_string("input", None, "Folder of images, or several separated by commas. Required.", flag_values=f)
    flags.DEFINE_string("output", None, "Folder of the prepared set. Required.", flag_values=f)
    flags.DEFINE_integer("size", 0, "Side in pixels that --fit makes.", flag_values=f)
    flags.DEFINE_string(
        "fit",
        "crop",
        "crop: the shorter side resized to --size, then the square in the middle; aspect: the shorter side resized, "
        "nothing cut off; tiles: overlapping squares of --size at the images' own scale; keep: as they are.",
        flag_values=f,
    )
    flags.DEFINE_string("split", "train", "Name of the split: train, validation, ...", flag_values=f)
    flags.DEFINE_string("split_file", "", "Text file of the images' names, one a line; default: all.", flag_values=f)
    flags.DEFINE_string("format", "png", "png (exact) or jpeg (small).", flag_values=f)
    flags.DEFINE_integer("quality", 95, "Of jpeg.", flag_values=f)
    flags.DEFINE_integer("processes", os.cpu_count(), "Processes that share the work.", flag_values=f)
    if program.wants_help(argv):
        program.print_help(USAGE.format(prog=prog), f)
        return
    program.parse(f, argv)
    if not (f["input"].value and f["output"].value):
        raise UserError("Give both --input, a folder of images, and --output, the folder of the prepared set.")
    from arbiscale_jax.data.prepare import prepare

    names = ("size", "fit", "split", "split_file", "quality", "processes")
    options = {name: f[name].value for name in names} | {"image_format": f["format"].value}
    with _progress() as progress:
        out = prepare(f["input"].value, f["output"].value, progress=progress, **options)
    print(
        f"{f['output'].value} ({options['split']}): {out['records']} records of {out['images']} images in "
        f"{out['shards']} shards, {out['bytes'] / 1e6:.1f} MB"
    )
    for name, why in out["broken"]:
        print(f"left out: {name}: {why}")


@contextmanager
def _progress():
    """Shows a bar on stderr; yields the function (done, total) that moves it."""
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("preparing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
