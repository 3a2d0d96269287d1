"""Joins the processes of a training run over several hosts, and defines the flags that name them."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from absl import flags

from arbiscale_jax.cli import program
from arbiscale_jax.errors import UserError

_NAMES = ("coordinator-address", "num-processes", "process-id")


def define(flag_values: flags.FlagValues) -> None:
    """Defines --multihost and the flags that go with it."""
    flags.DEFINE_boolean(
        "multihost",
        False,
        "Train over several processes (hosts), each started with the same command. Under Slurm, Open MPI, Kubernetes "
        "and on TPU pods the processes find each other; elsewhere give the three flags below.",
        flag_values=flag_values,
    )
    flags.DEFINE_string("coordinator-address", None, "Address of process 0, HOST:PORT.", flag_values=flag_values)
    flags.DEFINE_integer("num-processes", None, "Number of processes.", flag_values=flag_values)
    flags.DEFINE_integer("process-id", None, "Number of this process, counted from 0.", flag_values=flag_values)


def check(flag_values: flags.FlagValues) -> None:
    """Raises UserError for flags that do not go together."""
    given = [f"--{name}" for name in _NAMES if flag_values[name].value is not None]
    if given and not flag_values["multihost"].value:
        raise UserError(f"{' and '.join(given)} need --multihost; add it or leave them out.")
    if 0 < len(given) < len(_NAMES):
        missing = [f"--{name}" for name in _NAMES if f"--{name}" not in given]
        raise UserError(f"{' and '.join(given)} need {' and '.join(missing)} too; give all three or none.")
    opts = program.values(flag_values)
    if given and not 0 <= opts["process-id"] < opts["num-processes"]:
        raise UserError(
            f"--process-id lies in [0, --num-processes), got {opts['process-id']} of {opts['num-processes']}."
        )


@contextmanager
def joined(flag_values: flags.FlagValues) -> Iterator[None]:
    """Joins the other processes if --multihost is given.

    A process that fails exits at once instead of waiting for the others, as JAX does at the end of a run. The others
    notice within seconds that it is gone and end too, instead of waiting for it in their next step.

    Raises:
      UserError: if the other processes are not found.
    """
    if not flag_values["multihost"].value:
        yield
        return
    import jax

    address, num, index = (flag_values[name].value for name in _NAMES)
    try:
        jax.distributed.initialize(address, num, index)
    except (RuntimeError, ValueError) as e:
        raise UserError(f"--multihost could not join the other processes ({e}); check the three flags.") from e
    try:
        yield
        return
    except KeyboardInterrupt:
        raise
    except UserError as e:
        program.print_error(e)
        code = 2
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
