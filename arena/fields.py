"""Types with ranges: what a field of a declaration may hold, written once, checked everywhere.

A range is part of the type (`eps: NonNegative`). The same line of code therefore checks a value
given in Python (`Declared.__post_init__`) and one written in a yaml (`schema.py`, which reads the
source and never imports torch). For that reason this module imports nothing heavy.
"""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

LARGEST = 1e30
"""The largest size of a real number in a declaration: float32 ends at 3e38."""

MOST = 10**9
"""The largest count in a declaration: a loop of so many steps does not end."""


@dataclass(frozen=True)
class Range:
    """An interval of numbers, `low` to `high`; `above` excludes `low` itself."""

    low: float = -LARGEST
    high: float = LARGEST
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def broken_by(self, value: float) -> str | None:
        """Says what a finite value outside the interval must be; None inside.

        Of an interval with no upper end of its own, only the end that is passed is told.
        """
        if value in self:
            return None
        if self.high < MOST:
            return f"must be between {self.low:g} and {self.high:g}" + " (not 0)" * self.above
        if value > self.high:
            return f"must be at most {self.high}"
        return f"must be {'above' if self.above else 'at least'} {self.low:g}"


Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1, MOST)]
Whole = Annotated[int, Range(0, MOST)]


def problem(value: Any, kind: Any) -> str | None:
    """Says what is wrong with `value` as a `kind`, or None.

    Plain kinds are numbers, strings, sequences and mappings; for any other class, `value` must be
    an instance. A real number is finite and at most `LARGEST` in size.
    """
    if get_origin(kind) is Annotated:
        plain, *marks = get_args(kind)
        found = problem(value, plain)
        if found is None and isinstance(value, int | float):
            for mark in marks:
                if isinstance(mark, Range) and (found := mark.broken_by(value)):
                    return found
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
        return _number_problem(value)
    if kind is str:
        return None if isinstance(value, str) else "must be text"
    if get_origin(kind) is tuple:
        return _sequence_problem(value, get_args(kind))
    if get_origin(kind) in (Mapping, dict):
        return None if isinstance(value, Mapping) else "must be a mapping"
    if isinstance(kind, type) and kind.__module__ not in ("builtins", "typing"):
        return None if isinstance(value, kind) else f"must be a {kind.__name__}"
    return None


def _number_problem(value: Any) -> str | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "must be a number"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    return None if abs(value) <= LARGEST else f"must be at most {LARGEST:g} in size"


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
    """The value with tuples for lists: a declaration read from yaml is then hashable, too."""
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
