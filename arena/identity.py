"""The code that a declaration uses: its classes' files and the files that these import.

Two results are comparable if the same code made them. So whatever is kept is kept under a hash of
the files that made it: the modules of the declared classes and everything that these import, at any
depth. An edit of any such file changes the hash. An edit of any other file does not, nor does an
edit of comments, docstrings or layout.

arena's own files and the user's are read. A package that is installed beside Python, such as torch,
counts by its version. Python's own library does not count. Imports are found by reading, not by
running: code that is loaded by a computed name (`importlib.import_module(name)`) is not seen, nor
is an import that only a type checker follows.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
"""Stands for the hash of a module without a file, such as a notebook."""

_ARENA = __name__.partition(".")[0]
_PYTHONS = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
_INSTALLED = {"site-packages", "dist-packages"}
_CODE = (".py", ".so", ".pyd")
_MAIN = ("__main__", "__mp_main__")  # a script is called by the second name in a worker process


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
    waiting = {each for name in classes for each in _named(name, None)}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        module = _located(name)
        if isinstance(module, _File):
            read = _read(name, module)
            found[module.label] = read.digest
            waiting |= {each for wanted in read.imports for each in _named(*wanted)} - seen
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


@dataclass(frozen=True)
class _File:
    """A module whose file is read.

    Attributes:
        label: The file's path from the folder that it is imported from.
        path: Where it is.
        package: The package that its relative imports begin at.
    """

    label: str
    path: Path
    package: str


def _located(name: str) -> _File | Mapping[str, str]:
    """A module's file, or what stands for it: nothing if it does not count, or is not there."""
    top = name.partition(".")[0]
    if name in _MAIN:
        return _script(name)
    if name in ("", _ARENA) or _is_pythons(top):
        return {}
    if top != _ARENA and _installed(_spec(top)):
        return _version(top)
    spec = _spec(name)
    if spec is None:  # not installed, or no file
        return {name: UNKNOWN} if name in sys.modules else {}
    if spec.origin is None or not spec.has_location:  # a folder without an __init__
        return {}
    path, is_package = Path(spec.origin), spec.submodule_search_locations is not None
    if not path.is_file():  # in an archive
        return {name: UNKNOWN}
    folders = name.count(".") + 1 + is_package
    package = name if is_package else name.rpartition(".")[0]
    return _File("/".join(path.parts[-folders:]), path, package)


def _is_pythons(top: str) -> bool:
    """Whether a module belongs to Python, and is not a user's that took its name."""
    if top not in sys.stdlib_module_names:
        return False
    spec = _spec(top)
    if spec is None or spec.origin is None or not spec.has_location:
        return True
    return any(map(Path(spec.origin).resolve().is_relative_to, _PYTHONS))


def _installed(spec: ModuleSpec | None) -> bool:
    if spec is None:
        return False
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(_INSTALLED.intersection(Path(place).parts) for place in places)


def _script(name: str) -> _File | Mapping[str, str]:
    main = sys.modules.get(name) or sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        return {"__main__": UNKNOWN}
    return _File(Path(file).name, Path(file), getattr(main, "__package__", None) or "")


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is, found without importing it or its packages; None: nowhere."""
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            return importlib.util.find_spec(name)
        package = _spec(parent)
        if package is None or package.submodule_search_locations is None:
            return None
        return PathFinder.find_spec(name, package.submodule_search_locations)
    except (ImportError, ValueError):
        return None


@functools.cache
def _version(top: str) -> dict[str, str]:
    """The version of the installed package that has this name, if it says which."""
    try:
        return {top: importlib.metadata.version(top)}
    except importlib.metadata.PackageNotFoundError:
        named = importlib.metadata.packages_distributions().get(top, [])
        return {each: importlib.metadata.version(each) for each in named}


def _named(module: str, name: str | None) -> Iterator[str]:
    """The modules that `import module`, or `from module import name`, loads."""
    parts = module.split(".")
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
    if name is not None and _spec(f"{module}.{name}") is not None:
        yield f"{module}.{name}"
    elif module == _ARENA:
        # It imports nothing itself, but looks its public names up when they are asked for.
        public = importlib.import_module(_ARENA)
        for each in public.__all__ if name in (None, "*") else [name]:
            yield getattr(getattr(public, each, None), "__module__", _ARENA)


@dataclass(frozen=True)
class _Read:
    """What a file says.

    Attributes:
        digest: A hash of its code.
        imports: The modules that it imports, each with a name that is taken from it, or None.
    """

    digest: str
    imports: tuple[tuple[str, str | None], ...]


_known: dict[Path, tuple[object, _Read]] = {}


def _read(name: str, file: _File) -> _Read:
    """What a module says: as it was loaded, if it is.

    A process goes on with what it has loaded when somebody edits the file. So a module is read once
    for each time that it is loaded.
    """
    module = sys.modules.get(name)
    if module is None:
        status = file.path.stat()
        loaded: object = (status.st_mtime_ns, status.st_size)
    else:
        loaded = getattr(module, "__spec__", None) or module  # a reload makes a new spec
    then, read = _known.get(file.path, (None, None))
    if read is None or not (then == loaded if isinstance(loaded, tuple) else then is loaded):
        read = _parsed(file)
        _known[file.path] = loaded, read
    return read


def _parsed(file: _File) -> _Read:
    content = file.path.read_bytes()
    try:
        tree = ast.parse(content, str(file.path))
    except (SyntaxError, ValueError):  # a compiled module, or one that cannot be loaded
        return _Read(hashlib.sha256(content).hexdigest(), ())
    imports = tuple(dict.fromkeys(_imports(tree, file.package)))
    _remove_docstrings(tree)
    return _Read(hashlib.sha256(_shape(tree).encode()).hexdigest(), imports)


def _shape(node: Any) -> str:
    """A syntax tree as text that is the same for every version of Python.

    Unlike `ast.dump`, it leaves out all that is empty: newer versions have fields that older ones
    lack.
    """
    if isinstance(node, list):
        return f"[{','.join(map(_shape, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    inner = ((name, getattr(node, name, None)) for name in node._fields)
    said = [f"{name}={_shape(value)}" for name, value in inner if value is not None and value != []]
    return f"{type(node).__name__}({','.join(said)})"


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """A node and the statements in it, at any depth, but for those that only a checker reads."""
    yield node
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        if field == "body" and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        inner = getattr(node, field, ())
        for each in inner if isinstance(inner, list) else ():
            yield from _statements(each)


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str | None]]:
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from ((module, alias.name) for alias in node.names)


def _remove_docstrings(tree: ast.Module) -> None:
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [each for each in node.body if not _is_text(each)]


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
