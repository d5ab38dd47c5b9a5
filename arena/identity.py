"""The code that a declaration uses: its classes' files and the files that these import.

Two results are comparable if the same code made them. So whatever is kept is kept under a hash of
the files that made it: the modules of the declared classes and everything that these import, at any
depth. An edit of any such file changes the hash. An edit of any other file does not, nor does an
edit of comments, docstrings or layout.
"""

import functools
import hashlib
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from arena.modules import UNKNOWN, File, located, named, read

_CODE = (".py", ".so", ".pyd")


def code(values: Iterable[Any]) -> str:
    """A hash of the code that values use; see `sources`.

    Where a module has no file, nothing tells whether it changed: the hash is then another one at
    every call, so that nothing kept under it is ever found.
    """
    found = sources(values)
    return uuid.uuid4().hex if UNKNOWN in found.values() else digest(found)


def digest(found: Mapping[str, str]) -> str:
    """One hash of what `sources` found."""
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def sources(values: Iterable[Any]) -> dict[str, str]:
    """The code that values use, sorted by name.

    Args:
        values: Declarations, classes, functions or any other objects. What they hold counts, too:
            the fields of dataclasses, the items of containers, the attributes of other objects.

    Returns:
        By file (`arena/attacks/pgd.py`: its path from the folder that it is imported from), a hash
        of its code, or `UNKNOWN` for a module without a file. By installed package, its version.
    """
    found: dict[str, str] = {}
    classes = {name for value in _parts(values) for name in _modules_of(value)}
    waiting = {each for name in classes for each in named(name, None)}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        module = located(name)
        if isinstance(module, File):
            code_of = read(name, module)
            found[module.label] = code_of.digest
            waiting |= {each for wanted in code_of.imports for each in named(*wanted)} - seen
        else:
            found |= module
    return dict(sorted(found.items()))


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs between two `sources`, in words; a module without a file always does."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if UNKNOWN in (old, new):
            found.append(f"{name} (which has no file)")
        elif old != new:
            versions = not name.endswith(_CODE)
            found.append(f"{name} ({old or 'none'}, now {new or 'none'})" if versions else name)
    return found


def _parts(values: Iterable[Any]) -> Iterator[Any]:
    """All objects that values hold, each once."""
    waiting, seen = list(values), dict[int, Any]()  # the objects, lest another takes an id
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, str | bytes | int | float | types.ModuleType):
            continue
        seen[id(value)] = value
        yield value
        if isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
        elif isinstance(value, functools.partial):
            waiting += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            continue
        elif isinstance(value, types.MethodType):
            waiting += [value.__self__, value.__func__]
        elif is_dataclass(value):
            waiting += [getattr(value, each.name, None) for each in fields(value)]
        elif hasattr(value, "__dict__"):
            waiting += vars(value).values()


def _modules_of(value: Any) -> Iterator[str]:
    """The names of the modules that define a value."""
    if isinstance(value, types.FunctionType):
        yield value.__module__ or ""
    for cls in (value if isinstance(value, type) else type(value)).__mro__:
        yield cls.__module__
