"""Typed configuration: every node with a `_target_` is checked against its class, then built.

The check reads the class's source instead of importing it: a mistyped key is answered in a fraction
of a second, before torch is imported. What it learns there (fields, types, ranges: see `fields`)
is what the class checks again when it is made.
"""

import ast
import difflib
import importlib
import importlib.util
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from arena import fields
from arena.declaration import Knowledge


class ConfigError(ValueError):
    """A configuration that no class can be made of; says which key and what to write."""


class _Targeted(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Mapping) and "_target_" in value


KNOWLEDGE = "arena.knowledge.Knowledge"

# Stands for any class that an annotation names: in a configuration its value is a node of its own.
Node = _Targeted("node with a _target_", (), {})


@dataclass(frozen=True)
class Field:
    """A field of a dataclass, as its source declares it."""

    kind: Any
    required: bool


class _Names(dict[str, Any]):
    """The names an annotation may use; one that is not here is a class, hence a node."""

    def __missing__(self, name: str) -> Any:
        return Node


_NAMES = _Names(
    {
        **{name: getattr(fields, name) for name in vars(fields) if not name.startswith("_")},
        **{t.__name__: t for t in (bool, int, float, str, tuple, dict, list, object)},
        **{"Any": Any, "Literal": typing.Literal, "Callable": Callable},
        **{"Mapping": Mapping, "Sequence": Sequence, "None": None},
    }
)


def near(name: str, known: Iterable[str], there: Iterable[str] | None = None) -> str:
    """A hint: `; did you mean ...?`, else what there is (by default, what is known).

    Of dotted names, the last part counts as much as the whole: a key in the wrong place is found.
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


@cache
def _classes(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, str]]:
    """The classes that a module defines, and what its imported names stand for."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ConfigError(
            f"there is no module {module}: is its folder the current one or on PYTHONPATH?"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        return {}, {}
    try:
        tree = ast.parse(Path(spec.origin).read_bytes(), spec.origin)
    except SyntaxError as error:
        raise ConfigError(f"{spec.origin}, line {error.lineno}: {error.msg}") from None
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}, imported


def _origin(base: ast.expr) -> str:
    """The class that a base names, without its type arguments."""
    return ast.unparse(base.value if isinstance(base, ast.Subscript) else base)


@cache
def declared(target: str) -> dict[str, Field] | None:
    """The fields of the dataclass named `target`; None if it is none, or its source does not say.

    Raises:
        ConfigError: If there is no such module, or no such class in it.
    """
    module, _, name = target.rpartition(".")
    classes, imported = _classes(module)
    if name not in classes:
        if name in imported:
            return declared(imported[name])
        if classes and module.split(".")[0] == "arena":
            raise ConfigError(f"{module} has no class {name}{near(name, list(classes))}")
        return None
    node = classes[name]
    if not any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
        return None
    found: dict[str, Field] = {}
    for origin in map(_origin, node.bases):
        parent = f"{module}.{origin}" if origin in classes else imported.get(origin)
        if parent is None:
            return None
        found |= declared(parent) or {}
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            written = ast.unparse(line.annotation)
            if not written.startswith("ClassVar"):
                try:
                    kind = eval(written, {"__builtins__": {}}, _NAMES)
                except Exception:  # beyond these names: the class itself will judge
                    kind = Any
                found[line.target.id] = Field(kind, required=line.value is None)
    return found


def constant(target: str, name: str) -> ast.expr | None:
    """What the class named `target` sets `name` to in its body, or inherits; None: unknown."""
    module, _, cls = target.rpartition(".")
    classes, imported = _classes(module)
    if cls not in classes:
        return constant(imported[cls], name) if cls in imported else None
    for line in classes[cls].body:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == name:
            return line.value
        if isinstance(line, ast.FunctionDef) and line.name == name:
            return None
    for base in map(_origin, classes[cls].bases):
        parent = f"{module}.{base}" if base in classes else imported.get(base)
        if parent and (found := constant(parent, name)) is not None:
            return found
    return None


def check_knowledge(players: Mapping[str, Any]) -> None:
    """Refuses players whose strategies say in their source that they need more than is granted.

    `Arena` judges every match whole; this is the part that can be told without importing torch.

    Raises:
        ConfigError: Naming the player, what its strategy needs and what would grant it.
    """
    for name, player in players.items():
        strategy, granted = player.get("strategy"), player.get("knowledge")
        if fields.problem(strategy, Node) or fields.problem(granted, Node):
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


def check(node: Any, path: str = "") -> None:
    """Checks a composed configuration (plain mappings and lists) against its classes.

    Raises:
        ConfigError: Naming the key, what was found and what is wanted, with the near matches.
    """
    if isinstance(node, list):
        for i, item in enumerate(node):
            check(item, f"{path}[{i}]")
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        check(value, f"{path}.{key}" if path else str(key))
    if "_target_" not in node:
        return
    target = node["_target_"]
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"{path}._target_={target} must be a class, as package.module.Class")
    try:
        known = declared(target)
    except ConfigError as error:
        raise ConfigError(f"{path}._target_={target}: {error}") from None
    if known is None:
        return
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in known:
            raise ConfigError(f"{path}.{key}: no such option of {target}{near(key, list(known))}")
        if problem := fields.problem(value, known[key].kind):
            raise ConfigError(f"{path}.{key}={value} {problem}")
    for key, field in known.items():
        if field.required and key not in node:
            raise ConfigError(f"{path}.{key} is missing: {target} needs it")


def build(node: Any) -> Any:
    """Makes the objects of a checked configuration, innermost first."""
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
