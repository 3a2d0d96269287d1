"""Reads the flag --config, a configuration by path or by bare name, and the flags that override its fields."""

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags
from ml_collections import config_flags

from arbiscale_jax.cli import program
from arbiscale_jax.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = (Path("configs"), _PACKAGE / "configs", _PACKAGE.parent / "configs")  # here, in a wheel, in a clone


def split(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the value of --config (the last one, or None) and the arguments without it."""
    config, rest, args = None, [], iter(argv)
    for arg in args:
        if re.fullmatch(r"--?config", arg):
            config = next(args, "")
        elif match := re.match(r"--?config=", arg):
            config = arg[match.end() :]
        else:
            rest.append(arg)
    return config, rest


def known() -> list[str]:
    """Returns the names of all configurations that can be given without a path."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.py") if not path.stem.startswith("_")})


def missing() -> UserError:
    """Returns the error for a command line without --config."""
    return UserError(f"Give --config, a file or one of {', '.join(known())}.")


def find(name: str) -> Path:
    """Returns the file of a configuration, given by its path or by a bare name in ./configs, the wheel or the clone.

    Raises:
      UserError: if there is none.
    """
    if not name:
        raise missing()
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path
    if path.suffix in ("", ".py") and path.parent in (Path("."), Path("configs")):
        for folder in _FOLDERS:
            if (found := folder / f"{path.stem}.py").is_file():
                return found
    raise UserError(
        f"There is no configuration {name}{program.closest(path.stem, known())}; --config takes a Python file or "
        f"one of {', '.join(known())}."
    )


def load(name: str) -> ml_collections.ConfigDict:
    """Returns the result of get_config() of a configuration file, locked.

    Args:
      name: a path or bare name as for `find`; 'file.py:text' passes the text to get_config.

    Returns:
      The configuration.

    Raises:
      UserError: if there is no such file, or no get_config in it. What the file itself raises passes through.
    """
    name, *argument = name.split(":", 1)
    path = find(name)
    spec = importlib.util.spec_from_file_location(f"arbiscale_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={name} is not a Python file; give a .py file with a function get_config.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"{path} has no function get_config(); copy one of the files in configs/ to start from.")
    config = module.get_config(*argument)
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"get_config() of {path} returned {type(config).__name__}; it returns a ConfigDict.")
    return config.lock()


def define(config: ml_collections.ConfigDict, argv: Sequence[str], flag_values: flags.FlagValues) -> None:
    """Defines the flag --config.FIELD for each override in argv; parsing flag_values then sets the fields of `config`.

    Raises:
      UserError: if a field is unknown.
    """
    names = fields(config)
    for arg in argv:
        if match := re.match(r"--?(?:no)?config\.([^=]*)", arg):
            if match[1] not in names:
                raise UserError(_unknown_field(match[1], list(names)))
    config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=["arbiscale", *argv])


def fields(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, object]:
    """Returns the dotted name and the value of every field."""
    flat = {}
    for key, value in config.items():
        is_section = isinstance(value, ml_collections.ConfigDict)
        flat.update(fields(value, f"{prefix}{key}.") if is_section else {prefix + key: value})
    return flat


def _unknown_field(name: str, names: list[str]) -> str:
    section = [n for n in names if n.startswith(name + ".")]
    if section:
        return f"--config.{name} is a section, not a field; set its fields one by one: {', '.join(section)}."
    leaf = name.rsplit(".", 1)[-1]
    near = [n for n in names if n.rsplit(".", 1)[-1] == leaf]  # fields of that name in other sections
    hint = f" (did you mean {' or '.join(near)}?)" if near else program.closest(name, names)
    return f"There is no configuration field --config.{name}{hint}; --help --config=FILE lists all fields."
