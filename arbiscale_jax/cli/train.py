"""Trains one stage: `python run_train.py`, `arbiscale train`."""

from pathlib import Path

from absl import flags

from arbiscale_jax.cli import config_flag, multihost, program
from arbiscale_jax.config import get_base_config
from arbiscale_jax.errors import UserError

USAGE = """
Train one stage of a model: first_stage, diffusion or align, as the configuration says.

Usage:
  {prog} --config configs/quickstart_sr_first_stage.py
  {prog} --config quickstart_sr_diffusion --config.train.minutes=30
  {prog} --config quickstart_sr_first_stage --config.data.source=folder --config.data.root=DIR

Results go to the work directory, by default runs/CONFIG_NAME: config.json (the resolved configuration), checkpoints/,
metrics.jsonl, samples/. A work directory that holds checkpoints is resumed from the newest. A stage finds its
predecessors beside its work directory, under the same name: runs/NAME_first_stage, runs/NAME_diffusion, runs/NAME_align
(other places: --config.first_stage, --config.init_from).

Over several hosts, which share the work directory, call the same on each with --multihost.
"""


def main(argv: list[str], prog: str = "arbiscale train") -> None:
    """Runs the command with argv (without the program's name)."""
    flag_values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Work directory; default: runs/CONFIG_NAME.", flag_values=flag_values)
    multihost.define(flag_values)
    name, rest = config_flag.split(argv)
    if program.wants_help(argv):
        _print_help(prog, flag_values, name)
        return
    if not name:
        config_flag.find("")
    config = config_flag.load(name)
    config_flag.define(config, rest, flag_values)
    program.parse(flag_values, rest)
    workdir = Path(flag_values["workdir"].value or Path("runs") / Path(name.split(":", 1)[0]).stem)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a folder.")

    multihost.check(flag_values)
    program.start_jax()
    with multihost.joined(flag_values):
        from arbiscale_jax.training import train

        train(config, workdir)


def _print_help(prog: str, flag_values: flags.FlagValues, name: str | None) -> None:
    config = config_flag.load(name) if name else get_base_config()
    lines = [f"  --config.{key}={value!r}" for key, value in config_flag.fields(config).items()]
    flags.DEFINE_string(
        "config",
        None,
        f"Configuration: a Python file with get_config(), or a name: {', '.join(config_flag.known())}. Required.",
        flag_values=flag_values,
    )
    epilog = f"Any field of the configuration can be overridden ({name or 'defaults'}; see arbiscale_jax/config.py):\n"
    program.print_help(USAGE.format(prog=prog), flag_values, epilog + "\n".join(lines))
