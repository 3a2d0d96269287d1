"""Turns a training run into an exported model: `arbiscale export`."""

from pathlib import Path

from absl import flags

from arbiscale_jax.cli import program
from arbiscale_jax.errors import UserError

USAGE = """
Export a training run as a folder with config.json, weights.safetensors and a model card.

Usage:
  {prog} --run runs/quickstart_sr_align --output out/my_model
"""


def main(argv: list[str], prog: str = "arbiscale export") -> None:
    """Runs the command with argv (without the program's name)."""
    flag_values = flags.FlagValues()
    flags.DEFINE_string("run", None, "The training run's directory.", flag_values=flag_values)
    flags.DEFINE_string("output", None, "The folder to write.", flag_values=flag_values)
    if program.wants_help(argv):
        program.print_help(USAGE.format(prog=prog), flag_values)
        return
    program.parse(flag_values, argv)
    run, output = flag_values["run"].value, flag_values["output"].value
    if not run or not output:
        raise UserError("Give both --run, a training run's directory, and --output, the folder to write.")
    if not Path(run).is_dir():
        raise UserError(f"There is no directory --run={run}; give a training run's directory.")

    program.start_jax()
    import arbiscale_jax as aj

    aj.export(run, output)
    print(f"wrote {output}")
