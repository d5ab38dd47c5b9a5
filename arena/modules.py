"""Where a module's code is, what it says and what it imports, found without running it.

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
"""Stands for the hash of a module without a file, such as a notebook."""

_ARENA = __name__.partition(".")[0]
_PYTHONS = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
_INSTALLED = {"site-packages", "dist-packages"}
_MAIN = ("__main__", "__mp_main__")  # a script is called by the second name in a worker process


@dataclass(frozen=True)
class File:
    """A module whose file is read.

    Attributes:
        label: The file's path from the folder that it is imported from.
        path: Where it is.
        package: The package that its relative imports begin at.
    """

    label: str
    path: Path
    package: str


def located(name: str) -> File | Mapping[str, str]:
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
    return File("/".join(path.parts[-folders:]), path, package)


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


def _script(name: str) -> File | Mapping[str, str]:
    main = sys.modules.get(name) or sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        return {"__main__": UNKNOWN}
    return File(Path(file).name, Path(file), getattr(main, "__package__", None) or "")


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


def named(module: str, name: str | None) -> Iterator[str]:
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
class Read:
    """What a file says.

    Attributes:
        digest: A hash of its code.
        imports: The modules that it imports, each with a name that is taken from it, or None.
    """

    digest: str
    imports: tuple[tuple[str, str | None], ...]


_known: dict[Path, tuple[object, Read]] = {}


def read(name: str, file: File) -> Read:
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
    then, found = _known.get(file.path, (None, None))
    if found is None or not (then == loaded if isinstance(loaded, tuple) else then is loaded):
        found = _parsed(file)
        _known[file.path] = loaded, found
    return found


def _parsed(file: File) -> Read:
    content = file.path.read_bytes()
    try:
        tree = ast.parse(content, str(file.path))
    except (SyntaxError, ValueError):  # a compiled module, or one that cannot be loaded
        return Read(hashlib.sha256(content).hexdigest(), ())
    imports = tuple(dict.fromkeys(_imports(tree, file.package)))
    _remove_docstrings(tree)
    return Read(hashlib.sha256(_shape(tree).encode()).hexdigest(), imports)


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
