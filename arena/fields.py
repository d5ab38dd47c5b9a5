"""Types with ranges: what a field of a declaration may hold, said once, checked everywhere.

A range is part of the type (`eps: NonNegative`), so the same line of code checks a value given in
Python (`Declared.__post_init__`) and one written in a yaml (`schema.py`, which reads the source and
never imports torch). This module imports nothing heavy for that reason.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """An interval of numbers, `low` to `high`; `above` excludes `low` itself."""

    low: float = float("-inf")
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if self.high < float("inf"):
            return f"between {self.low:g} and {self.high:g}" + (" (not 0)" if self.above else "")
        return f"above {self.low:g}" if self.above else f"at least {self.low:g}"


Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]


def problem(value: Any, kind: Any) -> str | None:
    """Says what is wrong with `value` as a `kind`, or None.

    Plain kinds are numbers, strings, sequences and mappings; of another class it must be one.
    """
    if get_origin(kind) is Annotated:
        plain, *marks = get_args(kind)
        found = problem(value, plain)
        if found is None and isinstance(value, int | float):
            for mark in marks:
                if isinstance(mark, Range) and value not in mark:
                    return f"must be {mark}"
        return found
    if get_origin(kind) in (typing.Union, types.UnionType):
        found_all = [problem(value, option) for option in get_args(kind)]
        return None if None in found_all else " or ".join(dict.fromkeys(map(str, found_all)))
    if get_origin(kind) is Literal:
        options = get_args(kind)
        return None if value in options else f"must be one of {', '.join(map(str, options))}"
    if kind is None or kind is types.NoneType:
        return None if value is None else "must be null"
    if kind is bool:
        return None if isinstance(value, bool) else "must be true or false"
    if kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole else "must be a whole number"
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number else "must be a number"
    if kind is str:
        return None if isinstance(value, str) else "must be text"
    if get_origin(kind) is tuple:
        return _sequence_problem(value, get_args(kind))
    if get_origin(kind) in (Mapping, dict):
        return None if isinstance(value, Mapping) else "must be a mapping"
    if isinstance(kind, type) and kind.__module__ not in ("builtins", "typing"):
        return None if isinstance(value, kind) else f"must be a {kind.__name__}"
    return None


def _sequence_problem(value: Any, kinds: tuple[Any, ...]) -> str | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return "must be a list"
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        return f"must be a list of {len(kinds)}"
    for item, kind in zip(value, kinds, strict=True):
        if found := problem(item, kind):
            return f"item {item!r} {found}"
    return None


@cache
def _hints(cls: Any) -> dict[str, Any]:  # Any: mypy thinks dataclass types unhashable
    return get_type_hints(cls, include_extras=True)


def _frozen(value: Any) -> Any:
    """Lists become tuples, so that a declaration built from yaml is hashable like one in Python."""
    return tuple(map(_frozen, value)) if type(value) in (list, tuple) else value


@dataclass(frozen=True)
class Declared:
    """A frozen dataclass whose fields are checked against their types when it is made.

    Raises:
        ValueError: naming the class, the field, the value and what it must be.
    """

    def __post_init__(self) -> None:
        cls: Any = type(self)
        hints = _hints(cls)
        for field in fields(self):
            value = _frozen(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if found := problem(value, hints[field.name]):
                raise ValueError(f"{type(self).__name__}.{field.name} = {value!r} {found}")
