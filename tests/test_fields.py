"""Types with ranges: what a declaration accepts and what it says of the rest."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.fields import (
    LARGEST,
    MOST,
    Count,
    Declared,
    NonNegative,
    Positive,
    Range,
    Share,
    Whole,
    problem,
)


@pytest.mark.parametrize(
    ("kind", "good", "bad", "why"),
    [
        (Positive, [1e-9, 1, LARGEST], [0, 0.0, -1.0], "must be above 0"),
        (NonNegative, [0, 0.0, 2.5, 1e20], [-1e-9, -1], "must be at least 0"),
        (Share, [0, 1, 0.5], [-0.1, 1.1, 10**9], "must be between 0 and 1"),
        (Count, [1, 10**9], [0, -1, -(10**30)], "must be at least 1"),
        (Whole, [0, 1, MOST], [-1], "must be at least 0"),
        (Whole, [], [10**9 + 1, 10**30], "must be at most 1000000000"),
        (Count, [], [2**31, 10**400], "must be at most 1000000000"),
        (Annotated[int, Range(-3, 3)], [-3, 0, 3], [-4, 4], "must be between -3 and 3"),
        (Annotated[float, Range(0, 1, above=True)], [1], [0], "must be between 0 and 1 (not 0)"),
    ],
)
def test_ranges(kind, good, bad, why):
    assert [problem(value, kind) for value in good] == [None] * len(good)
    assert [problem(value, kind) for value in bad] == [why] * len(bad)


@pytest.mark.parametrize("kind", [float, Positive, NonNegative, Share, float | None])
def test_a_number_is_finite_and_of_a_size_to_reckon_with(kind):
    for value in (math.nan, math.inf, -math.inf):
        assert problem(value, kind).startswith("must be a finite number")
    for value in (1e308, -1e308, 1.1e30, 10**400):
        assert problem(value, kind).startswith("must be at most 1e+30 in size")
    rows = tuple[tuple[float, ...], ...]
    assert problem([[0.0, math.inf]], rows).endswith("item inf must be a finite number")


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.floats(), st.booleans())
def test_a_range_is_an_interval(a, b, value, above):
    low, high = sorted((a, b))
    inside = value > low if above else value >= low
    assert (value in Range(low, high, above)) == (inside and value <= high)


@pytest.mark.parametrize(
    ("kind", "good", "bad", "why"),
    [
        (int, [0, -3, 10**30], [True, False, 1.0, "1", None], "must be a whole number"),
        (Count, [1], [True, 1.0, "1"], "must be a whole number"),
        (float, [0, 1.5, -2], [True, False, "1.5", None, [1.0]], "must be a number"),
        (Share, [1], [True, "0.5"], "must be a number"),
        (bool, [True, False], [0, 1, "true", None], "must be true or false"),
        (str, ["", "text"], [1, None, ["a"]], "must be text"),
        (None, [None], [0, "", False], "must be null"),
        (Mapping[str, int], [{}, {"a": 1}], [[], "a", None], "must be a mapping"),
        (dict[str, int], [{}], [()], "must be a mapping"),
        (Literal["none", "labels"], ["none"], ["None", None, 0], "must be one of none, labels"),
        (Range, [Range()], [1, "Range", None, Range], "must be a Range"),
    ],
)
def test_types(kind, good, bad, why):
    assert [problem(value, kind) for value in good] == [None] * len(good)
    assert [problem(value, kind) for value in bad] == [why] * len(bad)


@given(st.one_of(st.none(), st.integers(), st.text(), st.booleans(), st.binary()))
def test_anything_goes_where_nothing_is_said(value):
    assert problem(value, Any) is None


def test_unions_take_what_any_part_takes():
    for value in (None, 0, 7):
        assert problem(value, Whole | None) is None
    assert problem(-1, Whole | None) == "must be at least 0 or must be null"
    assert problem(True, Whole | None) == "must be a whole number or must be null"
    assert problem("x", Count | Whole) == "must be a whole number"  # said once


def test_sequences():
    some = tuple[Count, ...]
    assert [problem(v, some) for v in ((), [], (1, 2), [3])] == [None] * 4
    assert problem((1, 0), some) == "item 0 must be at least 1"
    assert problem([1, "a"], some) == "item 'a' must be a whole number"
    for value in ("12", 12, None, {1, 2}, {1: 2}):
        assert problem(value, some) == "must be a list"
    pair = tuple[float, str]
    assert problem((1, "a"), pair) is None
    assert problem((1,), pair) == problem((1, "a", 2), pair) == "must be a list of 2"
    assert problem(("a", 1), pair) == "item 'a' must be a number"
    rows = tuple[tuple[float, ...], ...]
    assert problem([[1, 2], [3]], rows) is None
    assert problem([[1, 2], 3], rows) == "item 3 must be a list"


@dataclass(frozen=True)
class Thing(Declared):
    eps: NonNegative = 0.1
    steps: Count = 1
    names: tuple[tuple[str, ...], ...] = ()
    kind: Literal["a", "b"] = "a"
    extra: Any = None


@dataclass(frozen=True)
class Special(Thing):
    of: Thing = Thing()
    limit: Count | None = None


@dataclass(frozen=True)
class Named(Declared):
    players: Mapping[str, Thing] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"eps": -0.5}, "Thing.eps = -0.5 must be at least 0"),
        ({"eps": math.nan}, "Thing.eps = nan must be a finite number"),
        ({"eps": "0.5"}, "Thing.eps = '0.5' must be a number"),
        ({"steps": 0}, "Thing.steps = 0 must be at least 1"),
        ({"steps": True}, "Thing.steps = True must be a whole number"),
        ({"names": [["a"], "b"]}, "Thing.names = (('a',), 'b') item 'b' must be a list"),
        ({"kind": "c"}, "Thing.kind = 'c' must be one of a, b"),
    ],
)
def test_a_declaration_names_the_class_the_field_the_value_and_the_rule(wrong, said):
    with pytest.raises(ValueError) as caught:
        Thing(**wrong)
    assert str(caught.value) == said


def test_inherited_fields_are_checked_under_the_childs_name():
    with pytest.raises(ValueError, match=r"^Special.eps = -1 "):
        Special(eps=-1)
    with pytest.raises(ValueError, match=r"^Special.limit = 0 must be at least 1 or must be null$"):
        Special(limit=0)
    with pytest.raises(ValueError, match=r"^Special.of = 3 must be a Thing$"):
        Special(of=3)
    assert Special(of=Special()).of == Special()


def test_a_mapping_is_asked_for_by_name():
    assert Named({"a": Thing()}).players == {"a": Thing()}
    with pytest.raises(ValueError, match=r"^Named.players = \(1,\) must be a mapping$"):
        Named([1])


def test_lists_become_tuples_at_any_depth_and_the_declaration_hashable():
    frozen = Thing(names=(("a", "b"), ("c",)), extra=(1, (2,)))
    for spelled in ([["a", "b"], ["c"]], [("a", "b"), ["c"]], (["a", "b"], ["c"])):
        made = Thing(names=spelled, extra=[1, [2]])
        assert made.names == frozen.names and made.extra == frozen.extra
        assert made == frozen and hash(made) == hash(frozen)
        assert Special(of=made) in {Special(of=frozen)}


def test_a_frozen_declaration_stays_as_it_was_made():
    given_names = [["a"]]
    thing = Thing(names=given_names)
    given_names[0].append("b")
    assert thing.names == (("a",),)
    with pytest.raises(AttributeError):
        thing.eps = 3.0
