"""Trains one stage of a model: `python run_train.py`, `arbiscale train`."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from arbiscale_jax.cli import config_flag, multihost, program
from arbiscale_jax.errors import MissingPredecessor, UserError
from arbiscale_jax.experiments import get_base_config

USAGE = """
Train one stage of a model. The configuration says which: first_stage, diffusion or align.

Usage:
  {prog} --config configs/quickstart_sr_first_stage.py
  {prog} --config quickstart_sr_diffusion --config.train.minutes=30
  {prog} --config quickstart_sr_first_stage --config.data.source=folder --config.data.root=DIR

Results are written to the work directory, by default runs/CONFIG_NAME: config.json (the resolved configuration),
checkpoints/, metrics.jsonl and samples/. A work directory that holds checkpoints is resumed from the newest one. A
stage finds the stages before it beside its work directory, under the same name: runs/NAME_first_stage,
runs/NAME_diffusion, runs/NAME_align. For other places give --config.first_stage or --config.init_from.

To train over several hosts, which share the work directory, run the same command with --multihost on each.
"""


def main(argv: list[str], prog: str = "arbiscale train") -> None:
    """Runs the command with the arguments argv, without the program's name."""
    flag_values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "The work directory; default: runs/CONFIG_NAME.", flag_values=flag_values)
    multihost.define(flag_values)
    name, rest = config_flag.split(argv)
    if program.wants_help(argv):
        _print_help(prog, flag_values, name)
        return
    if not name:
        raise config_flag.missing()
    config = config_flag.load(name)
    config_flag.define(config, rest, flag_values)
    program.parse(flag_values, rest)
    opts = program.values(flag_values)
    program.at_home(opts, "workdir")
    workdir = Path(opts["workdir"] or Path("runs") / Path(name.split(":", 1)[0]).stem)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a folder.")

    multihost.check(flag_values)
    program.start_jax()
    with multihost.joined(flag_values):
        from arbiscale_jax.training import train

        try:
            train(config, workdir)
        except MissingPredecessor as e:
            raise UserError(f"{e}{_makers(e.names)}") from e


def _makers(names: Sequence[str]) -> str:
    """Returns a sentence with the configurations that train the missing run, if there are any."""
    found = [f"configs/{name}.py" for name in names if name in config_flag.known()]
    return f" 'python run_train.py --config {' or '.join(found)}' makes it." if found else ""


def _print_help(prog: str, flag_values: flags.FlagValues, name: str | None) -> None:
    config = config_flag.load(name) if name else get_base_config()
    lines = [f"  --config.{key}={value!r}" for key, value in config_flag.fields(config).items()]
    flags.DEFINE_string(
        "config",
        None,
        f"The configuration: a Python file with get_config(), or one of {', '.join(config_flag.known())}. Required.",
        flag_values=flag_values,
    )
    values = f"{name or 'defaults'}; see arbiscale_jax/experiments/base.py"
    lines = [f"Any field of the configuration can be overridden ({values}):", *lines]
    program.print_help(USAGE.format(prog=prog), flag_values, "\n".join(lines))
