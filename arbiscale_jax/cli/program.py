"""Contains what all commands share: flags, errors as one sentence, help, exit codes and JAX's cache on disk.

Nothing here imports JAX before a command has accepted its flags, so that --help and mistakes are answered at once.
"""

import difflib
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

import arbiscale_jax
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import discard_unfinished

_HELP = ("-h", "-help", "--help", "--helpfull", "--helpshort")
_VERSION = ("-version", "--version")


def run(command: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> int:
    """Runs `command(argv)` and returns the exit code.

    It is 0, or 2 after a user's mistake, which is printed as one sentence, or 130 after Ctrl-C. Any other exception is
    a bug and keeps its traceback. --version is answered here, for every command and subcommand.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if _asks(argv, _VERSION):
        print(f"arbiscale_jax {arbiscale_jax.__version__}")
        return 0
    try:
        command(argv)
    except UserError as e:
        print_error(e)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def print_error(error: UserError) -> None:
    """Prints a user's mistake as one sentence."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)


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


def values(flag_values: flags.FlagValues) -> dict[str, Any]:
    """Returns every flag's value by its name."""
    return {name: flag_values[name].value for name in flag_values}


def at_home(opts: dict[str, Any], *names: str) -> None:
    """Replaces a ~ at the beginning of these options, or of a part of one between commas, by the home folder.

    A shell does so only at the beginning of a word, so --output=~/x arrives as it was typed.
    """
    for name in names:
        if isinstance(opts.get(name), str):
            opts[name] = ",".join(map(os.path.expanduser, opts[name].split(",")))


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
    """Turns on JAX's compilation cache on disk, and marks absl's global flags as parsed, which grain requires.

    The cache is that of runtime.compile_cache.
    """
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    from arbiscale_jax.runtime.compile_cache import enable

    enable()


def default_dtype() -> str:
    """Returns the type in which commands compute: bfloat16 on an accelerator, float32 on a CPU."""
    import jax

    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def interruptible(work: Callable[[], object]) -> None:
    """Runs `work` in a thread, so that Ctrl-C ends the process at once and not after the program that is computed.

    Exceptions of `work` are raised here. After Ctrl-C unfinished files are deleted, and the exit code is 130.
    """
    raised: list[BaseException] = []

    def run_it() -> None:
        try:
            work()
        except BaseException as e:  # every exception is raised again below
            raised.append(e)

    thread = threading.Thread(target=run_it, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        discard_unfinished()
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
        print(f"{show_cursor}\ninterrupted", file=sys.stderr, flush=True)
        os._exit(130)  # a program that runs on the device cannot be ended in another way
    if raised:
        raise raised[0]


def _asks(argv: Sequence[str], names: Sequence[str]) -> bool:
    """Tells whether one of `names` is among the arguments before a lone '--'."""
    return any(arg in names for arg in argv[: argv.index("--") if "--" in argv else None])


def _hyphenate(arg: str, flag_values: flags.FlagValues) -> str:
    """Returns --max_pixels=1 as --max-pixels=1 if only the latter is a flag."""
    match = re.match(r"--?([A-Za-z_]+)(=|$)", arg)
    if match and match[1] not in flag_values and match[1].replace("_", "-") in flag_values:
        return "--" + match[1].replace("_", "-") + arg[match.end(1) :]
    return arg
