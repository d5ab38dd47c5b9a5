"""Typed configuration: every node with a `_target_` is checked against its class, then built.

The check reads the class's source and imports nothing: a mistyped key is answered in a fraction of
a second, before torch is imported, and code that no field asks for is never run. What the check
learns there (fields, types, ranges: see `fields`) is what the class checks again when it is made.
"""

import ast
import difflib
import importlib
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, get_args, get_origin

from arena import fields
from arena.declaration import Knowledge


class ConfigError(ValueError):
    """A configuration that no class can be made of; says which key and what to write."""


KNOWLEDGE = "arena.knowledge.Knowledge"

# What a node may be where its field's type names no class, as in `Fixed.model: Any`.
_BUILDABLE = (
    "arena.fields.Declared",
    "arena.classification.Classifier",
    "torch.nn.Module",
    "sklearn.base.BaseEstimator",
)


class Node(type):
    """The type, in a configuration, of a field whose annotation names the class `of`.

    Its instances are the mappings with a `_target_`. Whether that target derives from the class is
    `check`'s to say.
    """

    of: str

    def __instancecheck__(cls, value: Any) -> bool:
        return _is_node(value)


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


@cache
def node(of: str) -> Node:
    """The type of a node whose `_target_` derives from the class named `of`."""
    return Node("node with a _target_", (), {"of": of})


@dataclass(frozen=True)
class Field:
    """A field of a dataclass, as its source declares it."""

    kind: Any
    required: bool


_PLAIN = {
    **{name: getattr(fields, name) for name in vars(fields) if not name.startswith("_")},
    **{t.__name__: t for t in (bool, int, float, str, tuple, dict, list, object)},
    **{"Any": Any, "Literal": typing.Literal, "Callable": Callable},
    **{"Mapping": Mapping, "Sequence": Sequence, "None": None},
}


@dataclass(frozen=True)
class _Source:
    """What a module's source says: its classes, and what its imported names stand for."""

    classes: Mapping[str, ast.ClassDef]
    imported: Mapping[str, str]

    def meant(self, module: str, name: str) -> str | None:
        """The full name of the class that `module` writes as `name`; None: not told."""
        first, _, rest = name.partition(".")
        if first in self.classes:
            return f"{module}.{name}"
        if first in self.imported:
            return f"{self.imported[first]}.{rest}" if rest else self.imported[first]
        return None


class _Names(dict[str, Any]):
    """The names that annotations of a module may use; a class stands for a node of its own."""

    def __init__(self, module: str) -> None:
        super().__init__(_PLAIN)
        self._module = module

    def __missing__(self, name: str) -> Any:
        meant = _source(self._module).meant(self._module, name)
        return Any if meant is None else node(meant)


def near(name: str, known: Iterable[str], there: Iterable[str] | None = None) -> str:
    """A hint: `; did you mean ...?` if any known name is near, else a list of what there is.

    The list is `there`, or by default all that is known. The last part of a dotted name counts as
    much as the whole name, so that a key in the wrong place is found.
    """

    def ratio(one: str, other: str) -> float:
        return difflib.SequenceMatcher(None, one, other).ratio()

    def likeness(other: str) -> float:
        ends = (re.split("[./]", whole)[-1] for whole in (name, other))
        return (ratio(name, other) + ratio(*ends)) / 2

    known = set(known)
    ranked = sorted(((likeness(other), other) for other in known), reverse=True)[:3]
    matches = [other for score, other in ranked if score > max(0.6, ranked[0][0] - 0.15)]
    if matches:
        return f"; did you mean {' or '.join(matches)}?"
    listed = ", ".join(sorted(known if there is None else there))
    return f"; there is {listed}" if listed else ""


def _spec(module: str) -> ModuleSpec | None:
    """Where a module lies. `importlib.util.find_spec` would import the packages around it."""
    path: list[str] | None = None
    spec, name = None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _found(name, path)
        if spec is None:
            return None
        # A module that is no package holds no modules: an empty path finds none.
        path = list(spec.submodule_search_locations or ())
    return spec


def _found(name: str, path: list[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        with suppress(KeyError):  # a folder in a folder, neither with an `__init__`: see below
            if (spec := finder.find_spec(name, path)) is not None:
                return spec
    # Python finds such a folder only once the folder around it is imported.
    folders = [str(Path(each, name.rpartition(".")[2])) for each in path or ()]
    if not any(map(os.path.isdir, folders)):
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = folders
    return spec


@cache
def _source(module: str) -> _Source:
    """What the source of a module says; nothing, if it is not written in Python.

    Raises:
        ConfigError: If there is no such module, or it cannot be parsed.
    """
    spec = _spec(module)
    if spec is None:
        raise ConfigError(
            f"there is no module {module}: is its folder the current one or on PYTHONPATH?"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        return _Source({}, {})
    try:
        tree = ast.parse(Path(spec.origin).read_bytes(), spec.origin)
    except SyntaxError as error:
        raise ConfigError(f"{spec.origin}, line {error.lineno}: {error.msg}") from None
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return _Source(classes, dict(_imports(tree, package)))


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Each name that a module of `package` imports, with what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or whole, whole
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            home = ".".join([*(above if node.level else ()), *([node.module or ""])]).strip(".")
            for alias in node.names:
                yield alias.asname or alias.name, f"{home}.{alias.name}"


@cache
def _class(target: str) -> tuple[str, ast.ClassDef]:
    """The module in which the class named `target` is written, and its source.

    Raises:
        ConfigError: If there is no such module, or its source has no such class.
    """
    module, _, name = target.rpartition(".")
    seen = {target}
    while name not in (source := _source(module)).classes:
        meant = source.imported.get(name, "")
        if "." not in meant or meant in seen:
            raise ConfigError(f"{module} has no class {name}{near(name, source.classes)}")
        seen.add(meant)
        module, _, name = meant.rpartition(".")
    return module, source.classes[name]


def _parents(module: str, cls: ast.ClassDef) -> Iterator[str | None]:
    """The full names of a class's bases; None for one that the source does not tell."""
    for base in cls.bases:
        written = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        yield _source(module).meant(module, written)


@cache
def derives(target: str, of: str) -> bool:
    """Whether the class named `target` is the class `of` or derives from it, by its source.

    A name is compared as it is written and as what it stands for (`arena.Strategy` is
    `arena.core.Strategy`). What the source does not tell is not so.
    """
    left, seen = [target], set[str]()
    while left:
        name = left.pop()
        if name == of:
            return True
        if name in seen or "." not in name:
            continue
        seen.add(name)
        try:
            module, cls = _class(name)
        except ConfigError:
            continue
        left += [f"{module}.{cls.name}", *filter(None, _parents(module, cls))]
    return False


@cache
def declared(target: str) -> dict[str, Field] | None:
    """The fields of the dataclass named `target`; None if it is none, or its source does not say.

    Raises:
        ConfigError: If there is no such module, or no such class in it.
    """
    module, cls = _class(target)
    if not any("dataclass" in ast.unparse(mark) for mark in cls.decorator_list):
        return None
    found: dict[str, Field] = {}
    for parent in _parents(module, cls):
        if parent is None:
            return None
        found |= _inherited(parent)
    names = _Names(module)
    for line in cls.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            written = ast.unparse(line.annotation)
            if not written.startswith("ClassVar"):
                try:
                    kind = eval(written, {"__builtins__": {}}, names)
                except Exception:  # beyond these names: the class itself will judge
                    kind = Any
                found[line.target.id] = Field(kind, required=line.value is None)
    return found


def _inherited(parent: str) -> dict[str, Field]:
    try:
        return declared(parent) or {}
    except ConfigError:  # a base without Python source, as `abc.ABC` may be, declares no fields
        return {}


def constant(target: str, name: str) -> ast.expr | None:
    """The value of `name` in the body of the class named `target`, or inherited; None: unknown."""
    try:
        module, cls = _class(target)
    except ConfigError:
        return None
    for line in cls.body:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == name:
            return line.value
        if isinstance(line, ast.FunctionDef) and line.name == name:
            return None
    for parent in filter(None, _parents(module, cls)):
        if (found := constant(parent, name)) is not None:
            return found
    return None


def check_knowledge(players: Mapping[str, Any]) -> None:
    """Refuses a player whose strategy needs, by its source, more than its knowledge grants.

    `Arena` checks every match in full. This is the part that needs no torch.

    Raises:
        ConfigError: Naming the player, what its strategy needs and what would grant it.
    """
    for name, player in players.items():
        strategy, granted = player.get("strategy"), player.get("knowledge")
        if not (_is_node(strategy) and _is_node(granted)):
            continue
        needs = constant(strategy["_target_"], "needs")
        if granted["_target_"] != KNOWLEDGE or not isinstance(needs, ast.Dict):
            continue
        knowledge = Knowledge(**{key: granted[key] for key in granted if key != "_target_"})
        for opponent, kind in zip(needs.keys, needs.values, strict=True):
            if why := knowledge.withholds(view := ast.unparse(kind)):
                raise ConfigError(
                    f"{name}'s {strategy['_target_'].rpartition('.')[2]} needs a {view} of the "
                    f"{ast.literal_eval(opponent or kind)}: {why}"
                )


def check(value: Any, path: str = "", kind: Any = Any) -> Any:
    """Checks a part of a composed configuration (plain mappings and lists), and gives it as read.

    A fraction such as `8/255` is read as a number wherever a real number is wanted.

    Args:
        value: The part.
        path: Its key, for messages.
        kind: What it must be, as in an annotation; the classes in it are `node`s.

    Raises:
        ConfigError: Naming the key, what was found and what is wanted, with the near matches.
    """
    if _is_node(value):
        return _checked_node(value, path, kind)
    if isinstance(value, list):
        value = [check(item, f"{path}[{i}]", kind) for i, item in enumerate(value)]
    elif isinstance(value, Mapping):
        value = {
            key: check(item, f"{path}.{key}" if path else str(key), kind)
            for key, item in value.items()
        }
    return _with_fractions(value, kind)


def _checked_node(given: Mapping[str, Any], path: str, kind: Any) -> dict[str, Any]:
    target = given["_target_"]
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"{path}._target_={target} must be a class, as package.module.Class")
    try:
        known = declared(target)
    except ConfigError as error:
        raise ConfigError(f"{path}._target_={target}: {error}") from None
    wanted = [of for of in _classes_in(kind) if _is_class(of)] or _BUILDABLE
    if not any(derives(target, of) for of in wanted):
        raise ConfigError(
            f"{path}._target_={target} does not derive, by its source, from {' or '.join(wanted)}"
        )
    found: dict[str, Any] = {"_target_": target}
    for key, value in given.items():
        if key == "_target_":
            continue
        if known is not None and key not in known:
            raise ConfigError(f"{path}.{key}: no such option of {target}{near(key, known)}")
        wanted_kind = Any if known is None else known[key].kind
        found[key] = check(value, f"{path}.{key}", wanted_kind)
        if problem := fields.problem(found[key], wanted_kind):
            raise ConfigError(f"{path}.{key}={value} {problem}")
    for key, field in (known or {}).items():
        if field.required and key not in given:
            raise ConfigError(f"{path}.{key} is missing: {target} needs it")
    return found


def _classes_in(kind: Any) -> Iterator[str]:
    """The full names of the classes in a type."""
    if isinstance(kind, Node):
        yield kind.of
    for part in get_args(kind):
        yield from _classes_in(part)


def _is_class(name: str) -> bool:
    """Whether there is a class of that name, as far as sources tell: it may stand for a type."""
    try:
        return bool(_class(name))
    except ConfigError:
        return False


def _options(kind: Any) -> Iterator[Any]:
    """The types of a union, without their ranges."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        for part in get_args(kind):
            yield from _options(part)
    else:
        yield get_args(kind)[0] if get_origin(kind) is typing.Annotated else kind


def _with_fractions(value: Any, kind: Any) -> Any:
    """The value, with fractions read where `kind` wants real numbers and takes no text."""
    options = list(_options(kind))
    if isinstance(value, str) and float in options and str not in options:
        top, slash, bottom = value.partition("/")
        with suppress(ValueError, ZeroDivisionError, OverflowError):
            return float(top) / float(bottom) if slash else value
    if isinstance(value, list):
        for option in options:
            if get_origin(option) is tuple and (kinds := get_args(option)):
                each = kinds if kinds[-1] is not ... else (kinds[0],) * len(value)
                if len(each) == len(value):
                    return [_with_fractions(*pair) for pair in zip(value, each, strict=True)]
    return value


def build(node: Any) -> Any:
    """Makes the objects of a checked configuration, the innermost first.

    Raises:
        ConfigError: If a class cannot be imported, or does not take the options.
    """
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    made = {key: build(value) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return made
    module, _, name = node["_target_"].rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_={node['_target_']} cannot be loaded: {error}") from error
    try:
        return target(**made)
    except TypeError as error:  # no dataclass of ours, or it would have been checked
        raise ConfigError(f"_target_={node['_target_']} cannot be made: {error}") from error
