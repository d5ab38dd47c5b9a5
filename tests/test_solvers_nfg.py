"""Gambit's files: what is written is read bit by bit, what is wrong is named."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from arena.solvers.nfg import NormalForm, read, write

GAME = NormalForm(
    "who moves first",
    ("defender", "attacker"),
    ("plain", "trained"),
    ("clean", "pgd", "square"),
    (np.array([[0, -1, -0.5], [-0.1, -0.2, 1e-9]]), np.array([[0, 1, 0.5], [0.1, 1 / 3, 1e9]])),
)


def test_the_first_players_strategy_changes_fastest():
    lines = write(GAME).splitlines()
    assert lines[0] == 'NFG 1 D "who moves first" { "defender" "attacker" }'
    assert lines[1] == '{ { "plain" "trained" } { "clean" "pgd" "square" } }'
    assert lines[3] == "0 0 -0.1 0.1"
    assert lines[4] == "-1 1 -0.2 0.3333333333333333"


names = st.text(max_size=8)


@given(st.data(), array_shapes(min_dims=2, max_dims=2, max_side=4))
def test_a_round_trip_is_exact(data, shape):
    numbers = st.floats(-1e300, 1e300)  # the span must be finite
    row, column = (data.draw(arrays(np.float64, shape, elements=numbers)) for _ in range(2))
    rows, columns = (tuple(data.draw(names) for _ in range(n)) for n in shape)
    given = NormalForm(data.draw(names), ("a", 'b"\\'), rows, columns, (row, column))
    found = read(write(given))
    assert (found.title, found.players) == (given.title, given.players)
    assert (found.rows, found.columns) == (rows, columns)
    for one, other in zip(found.payoffs, given.payoffs, strict=True):
        assert one.tobytes() == other.tobytes()  # of -0.0 too


def test_a_file_of_outcomes():
    found = read("""
        NFG 1 R "shared" { "P" "Q" } { { "a" "b" } { "c" "d" } }
        "a comment"
        { { "one" 1/3, 2 } { "two" -.5, 4e2 } }
        1 2 0 1
    """)
    assert found.comment == "a comment"
    assert found.payoffs[0].tolist() == [[1 / 3, 0], [-0.5, 1 / 3]]
    assert found.payoffs[1].tolist() == [[2, 0], [400, 2]]


def test_counts_stand_for_names():
    found = read('NFG 1 D "" { "P" "Q" } { 2 1 } 1 2 3 4')
    assert (found.rows, found.columns) == (("1", "2"), ("1",))
    assert found.payoffs[0].tolist() == [[1], [3]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "starts with the end"),
        ("EFG 2 R", "starts with EFG instead of NFG 1"),
        ('NFG 1 X "" { "P" "Q" }', "R or D"),
        ('NFG 1 R title { "P" "Q" }', "the title should be quoted, not title"),
        ('NFG 1 R "" { "P" "Q" "S" } { 1 1 1 } 1 2 3', "more than 2 players"),
        ('NFG 1 R ""\n{ "P" "Q" }\n{ 2 } 1 2 3 4', "line 3: strategies of 1 players"),
        ('NFG 1 R "" { "P" } { 1 } 1', "1 players; games of two"),
        ('NFG 1 R "" { "P" "Q" } { 2 0 }', "none empty"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 1 } 1 1', "strategies of more than 2 players"),
        ('NFG 1 R "" { "P" "Q" } { 2 x }', "x stands where a number of strategies"),
        ('NFG 1 R "" { "P" "Q" } { 2 1 } 1 2 3', "3 payoffs for 2 x 1 profiles"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } 1 two', "two stands where a payoff"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } 1 1/0', "1/0 divides by 0"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } 1 2 3', "more than 2 payoffs for 1 x 1"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } { { "" 1 2 } }', "0 outcomes for 1 x 1"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } 1 nan', "nan stands where a payoff"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } 1 1e999', "inf"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } { { "" 1 2 } } 2', "outcome 2, but there are 1"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } { { "" 1 2 } } 1 1', "more than 1 outcomes for 1 x 1"),
        ('NFG 1 R "" { "P" "Q" } { 1 1 } { { "" 1 } } 1', "} stands where a payoff"),
        ('NFG 1 R "" { "P" "Q', "stands where|should be quoted"),
    ],
)
def test_what_is_wrong_is_named(text, why):
    with pytest.raises(ValueError, match=why):
        read(text)


HEAD = 'NFG 1 R "" { "P" "Q" } '


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (HEAD + "{ 999999999 999999999 } 1 2", "999999999 x 999999999 profiles; at most 250000"),
        (HEAD + "{ 501 500 } 1 2", "501 x 500 profiles; at most 250000"),
        (HEAD + "{ 500 500 } 1 2", "2 payoffs for 500 x 500"),
        (HEAD + f"{{ {'9' * 5000} 1 }} 1 2", "9{40}... stands where a number of strategies"),
        (HEAD + "{ 1 1 } 1 1e99999999/3", "1e99999999/3 stands where a payoff"),
        (HEAD + "{ 1 1 } 1 1/" + "3" * 5000, "1/3{38}... stands where a payoff"),
        (HEAD + "{ 1 1 } 1 " + "1" * 400 + "/3", "1{40}... is infinite"),
        (HEAD + "{ 1 1 } 1 2" + " 3" * 10**6, "more than 2 payoffs for 1 x 1"),
        ('NFG 1 R "' + "x" * 10**7, 'the title should be quoted, not "'),
        ('NFG 1 R "' + "x" * 10**6 + '"', "the title has 1000002 characters; at most 65536"),
        ('NFG 1 R "" { ' + '"P" ' * 10**6, "more than 2 players"),
        ("x" * 10**7, "starts with x{40}... instead"),
        ("x" * (2**24 + 1), "16777217 characters; at most 16777216 are read"),
    ],
    ids=range(13),
)
def test_what_is_beyond_a_limit_is_refused_before_it_takes_memory(text, why):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=why) as refused:
            read(text)
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (HEAD + '{ { "a" } { ' + '"" ' * 5, "more than 4 strategies"),
        (HEAD + "{ 1 1 } { " + '{ "" 1 2 } ' * 5, "more than 4 outcomes"),
        (HEAD + "{ 1 5 } 1 2", "1 x 5 profiles; at most 4"),
    ],
)
def test_what_is_listed_counts_towards_the_limit(text, why, monkeypatch):
    monkeypatch.setattr("arena.solvers.nfg.PROFILES", 4)
    with pytest.raises(ValueError, match=why):
        read(text)


def test_names_must_fit_the_payoffs():
    with pytest.raises(ValueError, match=r"\(1, 1\) actions are named, payoffs are \(2, 2\)"):
        NormalForm("", ("a", "b"), ("x",), ("y",), (np.eye(2), np.eye(2)))
