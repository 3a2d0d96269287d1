"""Finds out what a PyTorch file's pickle names and does without running it, and makes stand-ins for foreign classes.

Lightning files carry optimizer states, callbacks and hyper-parameters. Their pickles name classes that may not be
installed here and must not be imported on behalf of a file that anyone may have written. torch.load(weights_only=True)
calls only what it is given, which are the stand-ins below; they keep nothing.
"""

import _compat_pickle
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

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


def describe(data: bytes) -> dict[str, set[str]]:
    """Follows a pickle's stack without making any object.

    Args:
      data: the pickle.

    Returns:
      A dict from each global that the pickle names (module.name, and its modern name) to what happens to it: call
        (REDUCE), items (its instances are filled like a dict) or appends (like a list).

    Raises:
      ValueError, IndexError, KeyError: if the data is not a pickle.
    """
    found, stack, memo, mark = {}, [], {}, object()
    for op, arg, _ in pickletools.genops(data):
        if op.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
            continue
        taken = _take(stack, op.stack_before, mark)
        first = taken[0] if taken else None
        if op.name == "MEMOIZE":
            memo[len(memo)] = first
        if op.name in ("GLOBAL", "STACK_GLOBAL", "INST"):
            name = arg.replace(" ", ".", 1) if arg else "unknown"
            found[name] = found.setdefault(modern(name), set())  # torch may use either name
            stack.append(name)
        elif op.name in ("NEWOBJ", "NEWOBJ_EX", "REDUCE"):
            if op.name == "REDUCE" and first in found:
                found[first].add("call")
            stack.append((first,))  # stands for an instance of it
        elif op.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif op.name == "DUP":
            stack += [first, first]
        elif op.name in ("BUILD", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "ADDITEMS", "MEMOIZE"):
            if isinstance(first, tuple) and first[0] in found and op.name[:3] in ("SET", "APP"):
                found[first[0]].add("items" if op.name[:3] == "SET" else "appends")
            stack.append(first)
        else:
            stack += [mark if op.name == "MARK" else None for _ in op.stack_after]
    return found


def _take(stack: list, before: list, mark) -> list:
    """Pops the values that an opcode takes from the stack, down to a mark if it takes one."""
    count = len(before)
    if pickletools.markobject in before:
        while stack.pop() is not mark:
            pass
        count = before.index(pickletools.markobject)
    return [stack.pop() for _ in range(count)][::-1]


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


def stand_ins(path: Path, names: list[str]) -> list[Callable | tuple[Callable, str]]:
    """Makes a stand-in for each foreign global of a PyTorch zip file, in the form that torch's safe_globals takes.

    Args:
      path: the file.
      names: the globals.

    Returns:
      The stand-ins, or pairs of a stand-in and the name for which it stands.

    Raises:
      UserError: if the file calls a function, which the message names.
      ValueError, zipfile.BadZipFile: if the file is damaged.
    """
    uses = describe(_read_pickle(path)) if names else {}
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


def _read_pickle(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]), None)
        if name is None:
            raise ValueError("it holds no data.pkl")
        return archive.read(name)
