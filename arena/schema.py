"""Typed configuration: every node with a `_target_` is checked against its class, then built.

The check reads the class's source instead of importing it: a mistyped key is answered in a fraction
of a second, before torch is imported. What it learns there (fields, types, ranges: see `fields`)
is what the class checks again when it is made.
"""

import ast
import difflib
import importlib
import importlib.util
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from arena import fields


class ConfigError(ValueError):
    """A configuration that no class can be made of; says which key and what to write."""


class Node:
    """Stands for any class of a field that the source names: its value is a node of its own."""


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


def near(name: str, known: Sequence[str]) -> str:
    """A hint at what may have been meant: ` (did you mean ...?)`, or what there is."""
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if matches:
        return f"; did you mean {' or '.join(matches)}?"
    return f"; there is {', '.join(sorted(known))}" if known else ""


@cache
def _classes(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, str]]:
    """The classes that a module defines, and the modules its other names come from."""
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
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"), spec.origin)
    imported = {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}, imported


@cache
def declared(target: str) -> dict[str, Field] | None:
    """The fields of the dataclass named `target`; None if it is no dataclass, so not ours to judge.

    Raises:
        ConfigError: If there is no such module, or no such class in it.
    """
    module, _, name = target.rpartition(".")
    classes, imported = _classes(module)
    if name not in classes:
        if name in imported:
            return declared(f"{imported[name]}.{name}")
        if classes and module.split(".")[0] == "arena":
            raise ConfigError(f"{module} has no class {name}{near(name, list(classes))}")
        return None
    node = classes[name]
    if not any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
        return None
    found: dict[str, Field] = {}
    for base in node.bases:
        origin = ast.unparse(base)
        parent = f"{module}.{origin}" if origin in classes else f"{imported.get(origin)}.{origin}"
        if origin in classes or origin in imported:
            found |= declared(parent) or {}
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            written = ast.unparse(line.annotation)
            if not written.startswith("ClassVar"):
                kind = eval(written, {"__builtins__": {}}, _NAMES)
                found[line.target.id] = Field(kind, required=line.value is None)
    return found


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
        problem = fields.problem(value, known[key].kind)
        if problem is None and _wants_node(known[key].kind, value):
            problem = "must be a node with a _target_"
        if problem:
            raise ConfigError(f"{path}.{key}={value} {problem}")
    for key, field in known.items():
        if field.required and key not in node:
            raise ConfigError(f"{path}.{key} is missing: {target} needs it")


def _wants_node(kind: Any, value: Any) -> bool:
    options = typing.get_args(kind) or (kind,)
    if Node not in options or (value is None and type(None) in options):
        return False
    return not (isinstance(value, Mapping) and "_target_" in value)


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
    return target(**made)
