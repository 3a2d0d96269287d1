"""Contains what all commands share: flags, errors as one sentence, help, exit codes and JAX's cache on disk.

Nothing here imports JAX before a command has accepted its flags, so that --help and mistakes are answered at once.
"""

import difflib
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from absl import flags

import arbiscale_jax
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.screen import printable
from arbiscale_jax.runtime.whole_files import discard_unfinished

Result = TypeVar("Result")

_HELP = ("-h", "-help", "--help", "--helpfull", "--helpshort")
_VERSION = ("-version", "--version")


def run(command: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Runs `command(argv)` and returns the exit code.

    It is what the command returns, such as 1 if a part of the work had to be left out, and 0 if it returns None. It is
    2 after a user's mistake, which is printed as one sentence, and 130 after Ctrl-C. Any other exception is a bug and
    keeps its traceback. --version is answered here, for every command and subcommand.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr; a file's name may have what has no encoding
    if _asks(argv, _VERSION):
        print(f"arbiscale_jax {arbiscale_jax.__version__}")
        return 0
    try:
        return command(argv) or 0
    except UserError as e:
        print_error(e)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def print_error(error: UserError) -> None:
    """Prints a user's mistake as one sentence."""
    print("error: " + printable(" ".join(str(error).split())), file=sys.stderr)


def say_left_out(line: str) -> None:
    """Names on stderr what the command leaves out."""
    print(f"left out: {printable(line)}", file=sys.stderr, flush=True)


def wants_help(argv: Sequence[str]) -> bool:
    """Tells whether argv asks for help before a lone '--'."""
    return _asks(argv, _HELP)


def print_help(usage: str, flag_values: flags.FlagValues, epilog: str = "") -> None:
    """Prints the usage, then each flag with its meaning and default."""
    print(usage.strip() + "\n\nFlags:")
    for name in flag_values:
        flag = flag_values[name]
        default = "" if flag.default in (None, "", []) else f" (default: {flag.default})"
        print(f"  --{name}: {' '.join(flag.help.split())}{default}")
    print("  --version: print the version and exit")
    print("  --help: print this and exit" + (f"\n\n{epilog.strip()}" if epilog else ""))


def parse(flag_values: flags.FlagValues, argv: Sequence[str], *, positional: bool = False) -> list[str]:
    """Parses argv (without the program's name) into flag_values and returns the positional arguments.

    '_' may be written for '-' in the name of a flag.

    Raises:
      UserError: if a flag is unknown, a value has the wrong type, or an argument belongs to no flag (unless
        `positional`).
    """
    flag_values.set_gnu_getopt(True)
    try:
        rest = flag_values(["arbiscale", *(_hyphenate(arg, flag_values) for arg in argv)])[1:]
    except flags.UnrecognizedFlagError as e:
        hint = closest(e.flagname, list(flag_values))
        raise UserError(f"There is no flag --{e.flagname}{hint}; --help lists all.") from e
    except flags.Error as e:
        raise UserError(f"{str(e).rstrip('.')} (--help explains every flag).") from e
    if rest and not positional:
        raise UserError(f"The argument {rest[0]!r} belongs to no flag; flags are --name=value, --help lists all.")
    return rest


class _Path(flags.ArgumentParser[str]):
    """Reads a path as `expand` does; a shell expands ~ at the beginning of a word alone, and not in --output=~/out."""

    def parse(self, argument: str) -> str:
        return expand(argument)


class _Paths(flags.ArgumentParser[str]):
    """Reads paths that are separated by commas."""

    def parse(self, argument: str) -> str:
        return ",".join(map(expand, argument.split(",")))


def expand(path: str) -> str:
    """Returns a path with the home directory in place of ~ or ~user at its beginning, if there is that directory."""
    return os.path.expanduser(path)


def define_path(
    name: str,
    default: str | None,
    help_: str,
    flag_values: flags.FlagValues,
    *,
    many: Literal["", "commas", "repeat"] = "",
) -> None:
    """Defines a flag that takes a path; several, if `many`, by commas or by repeating it."""
    if many == "repeat":
        flags.DEFINE_multi(_Path(), flags.ArgumentSerializer(), name, default, help_, flag_values=flag_values)
    else:
        flags.DEFINE(_Paths() if many else _Path(), name, default, help_, flag_values=flag_values)


def values(flag_values: flags.FlagValues) -> dict[str, Any]:
    """Returns every flag's value by its name."""
    return {name: flag_values[name].value for name in flag_values}


def closest(name: str, known: Sequence[str]) -> str:
    """Returns ' (did you mean A or B?)' for a misspelt name, or '' if no known name is similar."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def one_of_a_kind(flag_values: flags.FlagValues, *names: str) -> None:
    """Raises UserError if more than one of the flags is given."""
    given = [f"--{name}" for name in names if flag_values[name].present]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them.")


def start_jax() -> None:
    """Sets up JAX (runtime: compile_cache, xla_flags), and marks absl's flags as parsed, which grain requires."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    from arbiscale_jax.runtime import compile_cache, xla_flags

    compile_cache.enable()
    xla_flags.prefer_eigen()


def default_dtype() -> str:
    """Returns the type in which commands compute: bfloat16 on an accelerator, float32 on a CPU."""
    return "float32" if on_cpu() else "bfloat16"


def on_cpu() -> bool:
    """Tells whether JAX computes on the CPU; its devices are started."""
    import jax

    return jax.default_backend() == "cpu"


def interruptible(work: Callable[[], Result]) -> Result:
    """Runs `work` in a thread, so that Ctrl-C ends the process at once and not after the program that is computed.

    What it returns is returned, and what it raises is raised here. After Ctrl-C unfinished files are deleted, and the
    exit code is 130.
    """
    raised: list[BaseException] = []
    returned: list[Result] = []

    def run_it() -> None:
        try:
            returned.append(work())
        except BaseException as e:  # every exception is raised again below
            raised.append(e)

    thread = threading.Thread(target=run_it, daemon=True)
    try:
        thread.start()  # here, since Ctrl-C may come while it starts
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        discard_unfinished()
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
        print(f"{show_cursor}\ninterrupted", file=sys.stderr, flush=True)
        os._exit(130)  # a program that runs on the device cannot be ended in another way
    if raised:
        raise raised[0]
    return returned[0]


def _asks(argv: Sequence[str], names: Sequence[str]) -> bool:
    """Tells whether one of `names` is among the arguments before a lone '--'."""
    return any(arg in names for arg in argv[: argv.index("--") if "--" in argv else None])


def _hyphenate(arg: str, flag_values: flags.FlagValues) -> str:
    """Returns --max_pixels=1 as --max-pixels=1 if only the latter is a flag."""
    match = re.match(r"--?([A-Za-z_]+)(=|$)", arg)
    if match and match[1] not in flag_values and match[1].replace("_", "-") in flag_values:
        return "--" + match[1].replace("_", "-") + arg[match.end(1) :]
    return arg
