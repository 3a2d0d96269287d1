"""Finds out what a PyTorch file's pickle names and does without running it, and makes stand-ins for foreign classes.

Lightning files carry optimizer states, callbacks and hyper-parameters. Their pickles name classes that may not be
installed here and must not be imported on behalf of a file that anyone may have written. torch.load(weights_only=True)
calls only what it is given, which are the stand-ins below; they keep nothing.
"""

import _compat_pickle
import pickletools
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from arbiscale_jax.errors import UserError

# constructors in the pickles of harmless data, such as plain values of the standard library and of numpy
_DATA = re.compile(
    r"(collections|datetime|decimal|enum|fractions|pathlib|pathlib\._local|typing|uuid)\.\w+"
    r"|builtins\.(bytearray|bytes|complex|dict|float|frozenset|int|list|object|range|set|slice|str|tuple|type)"
    r"|argparse\.Namespace|types\.SimpleNamespace|functools\.partial|_?operator\.getitem|re\._compile|_codecs\.encode"
    r"|copyreg\._reconstructor"
    r"|numpy\.(dtype|ndarray|_?core\.multiarray\.(scalar|_reconstruct)|_?core\.numeric\._frombuffer)"
    r"|numpy\.random\.(_pickle\.__\w+_ctor|bit_generator\.__pyx_unpickle_\w+)"
)


class Global(NamedTuple):
    """Stands for a class or function that a pickle names."""

    name: str  # module.name


class Made(NamedTuple):
    """Stands for what a call of a global has made."""

    name: str  # the global


class Text(NamedTuple):
    """Stands for a string."""

    value: str


class Tuple(NamedTuple):
    """Stands for a tuple."""

    values: tuple


class Content(NamedTuple):
    """Describes what a pickle names and does."""

    # what happens to each global (module.name, and its modern name): call (REDUCE), member (it is getattr, which takes
    # a class's member by its name), items (its instances are filled like a dict) or appends (like a list)
    uses: dict[str, set[str]]
    storages: list[tuple[str, str, int]]  # type, key and number of values of each storage of tensors


def describe(data: bytes) -> Content:
    """Follows a pickle's stack without making any object.

    Args:
      data: the pickle.

    Returns:
      What it names and does.

    Raises:
      ValueError, IndexError, KeyError: if the data is not a pickle.
    """
    found, storages, stack, memo, mark = {}, [], [], {}, object()
    for op, arg, _ in pickletools.genops(data):
        if op.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
            continue
        taken, above = _take(stack, op.stack_before, mark)
        first = taken[0] if taken else None
        if op.name == "MEMOIZE":
            memo[len(memo)] = first
        if op.name in ("GLOBAL", "STACK_GLOBAL", "INST"):
            name = arg.replace(" ", ".", 1) if arg else "unknown"
            found[name] = found.setdefault(modern(name), set())  # torch may use either name
            stack.append(Global(name))
        elif op.name in ("NEWOBJ", "NEWOBJ_EX", "REDUCE"):
            name, member = first.name if isinstance(first, Global) else "", None
            if op.name == "REDUCE" and name:
                member = _member(*taken)
                found[name].add("member" if member else "call")
            stack.append(member or Made(name))
        elif op.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif op.name == "DUP":
            stack += [first, first]
        elif op.name in ("BUILD", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "ADDITEMS", "MEMOIZE"):
            if isinstance(first, Made) and first.name in found and op.name[:3] in ("SET", "APP"):
                found[first.name].add("items" if op.name[:3] == "SET" else "appends")
            stack.append(first)
        elif op.name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(Tuple(tuple(above or taken)))
        elif op.name in ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"):
            stack.append(Text(str(arg)))
        elif op.name in ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG"):
            stack.append(arg)
        else:
            if op.name == "BINPERSID" and isinstance(first, Tuple):
                storages += _storage(*first.values)
            stack += [mark if op.name == "MARK" else None for _ in op.stack_after]
    return Content(found, storages)


def _member(function, arguments) -> Global | None:
    """Returns the name of what getattr takes of a class where a pickle may do so, as Python 3.11.0 to 3.11.3 does.

    Those versions store a member of an enumeration as getattr(class, name), and so does every version with a class
    that is nested in another. The stand-in for getattr looks nothing up.
    """
    if modern(function.name) != "builtins.getattr" or not isinstance(arguments, Tuple) or len(arguments.values) != 2:
        return None
    owner, attribute = arguments.values
    if not (isinstance(owner, Global) and owner.name.rpartition(".")[2][:1].isupper()):
        return None
    plain = isinstance(attribute, Text) and attribute.value.isidentifier() and not attribute.value.startswith("_")
    return Global(f"{owner.name}.{attribute.value}") if plain else None


def _storage(*values) -> Iterator[tuple[str, str, int]]:
    """Yields the type, key and number of values of a storage from the values by which torch refers to it."""
    if len(values) >= 5 and isinstance(values[1], Global) and isinstance(values[2], Text):
        kind, key, count = values[1].name.rpartition(".")[2], values[2].value, values[4]
        if isinstance(count, int):
            yield kind, key, count


def _take(stack: list, before: list, mark) -> tuple[list, list]:
    """Pops what an opcode takes: a fixed number of values, and those above a mark if it takes a mark."""
    count, above = len(before), []
    if pickletools.markobject in before:
        while (one := stack.pop()) is not mark:
            above.append(one)
        count = before.index(pickletools.markobject)
    return [stack.pop() for _ in range(count)][::-1], above[::-1]


def modern(name: str) -> str:
    """Returns the name of a global in Python 3; pickles of protocol 2 use Python 2's names."""
    module, _, attribute = name.rpartition(".")
    module, attribute = _compat_pickle.NAME_MAPPING.get((module, attribute), (module, attribute))
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{attribute}"


def is_foreign_call(name: str) -> bool:
    """Tells whether calling `name(...)` may do more than make data: a function, or a class of the standard library.

    Classes of other packages, which are recognised by a capital letter, count as data, as enumerations and
    hyper-parameters are.
    """
    name = modern(name)
    module, _, attribute = name.rpartition(".")
    standard = module.split(".")[0] in sys.stdlib_module_names
    return not _DATA.fullmatch(name) and (standard or not attribute[:1].isupper())


class _Inert:
    """Takes the place of a foreign object and keeps nothing."""

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


class _InertMapping(_Inert):
    def __new__(cls, *args, **kwargs):
        return OrderedDict()  # the unpickler fills only exact dicts


class _InertList(_Inert):
    def __new__(cls, *args, **kwargs):
        return []


def stand_ins(path: Path, names: list[str], uses: dict[str, set[str]]) -> list[Callable | tuple[Callable, str]]:
    """Makes a stand-in for each foreign global of a PyTorch zip file, in the form that torch's safe_globals takes.

    Args:
      path: the file.
      names: the globals.
      uses: what the file's pickle does with its globals.

    Returns:
      The stand-ins, or pairs of a stand-in and the name for which it stands.

    Raises:
      UserError: if the file calls a function, which the message names.
    """
    for name in sorted(names):
        if "call" in uses.get(name, ()) and is_foreign_call(name):
            raise UserError(
                f"{path} is refused and cannot be read: it would call the function {modern(name)}, which weights have "
                "no need of; get them as a plain state dict or .safetensors from a source that you trust."
            )
    made: list[Callable | tuple[Callable, str]] = []
    for name in names:
        does = uses.get(name, ())
        base = _InertMapping if "items" in does else _InertList if "appends" in does else _Inert
        made.append((type(name.rpartition(".")[2], (base,), {}), name))
    return made
