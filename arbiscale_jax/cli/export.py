"""Turns a training run into an exported model: `arbiscale export`."""

from pathlib import Path

from absl import flags

from arbiscale_jax.cli import program
from arbiscale_jax.errors import UserError

USAGE = """
Export a training run as a folder with config.json, weights.safetensors and a model card. None of them names a path of
this machine.

Usage:
  {prog} --run runs/quickstart_sr_align --output out/my_model [--overwrite]
"""


def main(argv: list[str], prog: str = "arbiscale export") -> None:
    """Runs the command with the arguments argv, without the program's name."""
    flag_values = flags.FlagValues()
    flags.DEFINE_string("run", None, "The training run's directory.", flag_values=flag_values)
    flags.DEFINE_string("output", None, "The folder to write.", flag_values=flag_values)
    flags.DEFINE_bool("overwrite", False, "Replace the exported model that --output holds.", flag_values=flag_values)
    if program.wants_help(argv):
        program.print_help(USAGE.format(prog=prog), flag_values)
        return
    program.parse(flag_values, argv)
    opts = program.values(flag_values)
    program.at_home(opts, "run", "output")
    run, output = opts["run"], opts["output"]
    if not run or not output:
        raise UserError("Give both --run, a training run's directory, and --output, the folder to write.")
    if not Path(run).is_dir():
        raise UserError(f"There is no directory --run={run}; give a training run's directory.")

    program.start_jax()
    import arbiscale_jax as aj

    aj.export(run, output, overwrite=bool(opts["overwrite"]))
    print(f"wrote {output}")
