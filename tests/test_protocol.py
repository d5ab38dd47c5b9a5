"""Protocols: what contradicts itself is refused, with what to write instead."""

import itertools

import pytest

from arena.empirical.protocol import (
    AT_ONCE,
    ATTACKER_FIRST,
    DEFENDER_FIRST,
    DEFENDER_FIRST_PER_EXAMPLE,
    HALF_SEEN,
    MIXTURE_PER_EXAMPLE,
    STANDARD,
    Protocol,
)

WORDS = itertools.product(
    ("defender_first", "attacker_first", "simultaneous"),
    ("move", "mixture", "probe", "nothing"),
    ("pure", "mixed"),
    ("set", "example"),
)


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        (("simultaneous", "move", "pure"), "white box.*write order=defender_first"),
        (("simultaneous", "mixture", "mixed"), "see nothing: write observation=nothing"),
        (("simultaneous", "nothing", "pure"), "saddle.*write commitment=mixed"),
        (("defender_first", "nothing", "mixed"), "black box.*observation=probe.*simultaneous"),
        (("attacker_first", "nothing", "mixed"), "write order=simultaneous"),
        (("attacker_first", "probe", "mixed"), "shows the attacker.*write order=defender_first"),
        (("defender_first", "mixture", "pure"), "write observation=move"),
        (("defender_first", "move", "mixed"), "write commitment=pure"),
        (("defender_first", "probe", "pure"), "no probe.*write observation=move"),
        (("attacker_first", "move", "pure", "example"), r"reasonable time.*\(models - 1\)"),
        (("defender_first", "probe", "mixed"), "one of share and queries"),
        (("defender_first", "probe", "mixed", "set", 0.5, 3), "one of share and queries"),
        (("simultaneous", "nothing", "mixed", "set", 0.5), "belong to a probe"),
        (("defender_first", "probe", "mixed", "set", 1.5), r"share = 1.5 must be between 0 and 1"),
        (("defender_first", "probe", "mixed", "set", None, -1), "queries = -1 must be at least 0"),
        (("first", "move", "pure"), "order = 'first' must be one of"),
    ],
)
def test_what_contradicts_itself_is_refused_in_a_line(declared, why):
    with pytest.raises(ValueError, match=why) as refusal:
        Protocol(*declared)
    assert "\n" not in str(refusal.value)


def test_each_way_to_play_is_written_in_one_way():
    """What is accepted of all words, and nothing else."""
    accepted = set()
    for words in WORDS:
        try:
            accepted.add(Protocol(*words, share=0.5 if words[1] == "probe" else None))
        except ValueError:
            continue
    assert accepted == {
        *STANDARD,
        *(
            Protocol(*words)
            for words in (
                ("defender_first", "mixture", "mixed", "set"),
                ("attacker_first", "mixture", "mixed", "set"),
                ("attacker_first", "mixture", "mixed", "example"),
                ("simultaneous", "nothing", "mixed", "example"),
            )
        ),
        Protocol("defender_first", "probe", "mixed", "example", share=0.5),
    }


def test_a_log_line_says_all_four():
    assert str(DEFENDER_FIRST) == "defender first, pure, move seen, one attack for the whole set"
    assert str(AT_ONCE) == "at once, mixed, nothing seen, one attack for the whole set"
    labels = Protocol("defender_first", "probe", "mixed", "example", queries=3)
    assert str(labels) == "defender first, mixed, probe (3 queries) seen, one attack per example"
    assert len({str(protocol) for protocol in STANDARD}) == len(STANDARD)


def test_symbols():
    labels = Protocol("defender_first", "probe", "mixed", "example", queries=0)
    found = [protocol.symbol for protocol in (*STANDARD, labels)]
    assert found == ["V_DF", "V_K(0.5)", "v", "V_AF", "V_DF,pe", "v_pe", "V_K(0 labels),pe"]


def test_what_is_worth_no_more():
    chain = (DEFENDER_FIRST, HALF_SEEN, AT_ONCE, ATTACKER_FIRST)
    for (i, one), (j, other) in itertools.product(enumerate(chain), repeat=2):
        assert one.at_most(other) == (i <= j)
    assert MIXTURE_PER_EXAMPLE.at_most(AT_ONCE) and not AT_ONCE.at_most(MIXTURE_PER_EXAMPLE)
    assert DEFENDER_FIRST_PER_EXAMPLE.at_most(HALF_SEEN)
    assert not DEFENDER_FIRST.at_most(MIXTURE_PER_EXAMPLE)
    few, many = (Protocol("defender_first", "probe", "mixed", queries=q) for q in (1, 9))
    assert many.at_most(few) and not few.at_most(many)
    assert not few.at_most(HALF_SEEN) and not HALF_SEEN.at_most(few)
