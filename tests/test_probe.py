"""Probes: what they tell, from nothing to everything, and what that is worth."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_empirical_values import PENNIES, game

from arena.empirical.probe import channel, queried
from arena.empirical.protocol import AT_ONCE, DEFENDER_FIRST, Protocol
from arena.empirical.values import values
from arena.solvers.informed import through_probe


def answering(played, answers):
    return replace(played, answers=dict(zip(played.models, np.asarray(answers), strict=True)))


def asked(queries):
    return Protocol("defender_first", "probe", "mixed", queries=queries)


def glimpsed(share):
    return Protocol("defender_first", "probe", "mixed", share=share)


def test_models_that_answer_alike_are_one_signal():
    # The third input tells the models apart, the others do not: a third of the draws show all.
    answers = [[7, 1, 0], [7, 1, 5]]
    found = queried(answers, 1, draws=3000)
    assert found.sum(1) == pytest.approx([1, 1])
    apart = found[:, (found > 0).sum(0) == 1].sum(1)
    assert apart == pytest.approx([1 / 3, 1 / 3], abs=4 * (2 / 9 / 3000) ** 0.5)
    assert queried(answers, 3).tolist() in ([[0, 1], [1, 0]], [[1, 0], [0, 1]])
    assert queried(answers, 0).tolist() == [[1], [1]]


def test_the_value_falls_by_hand():
    """Matching pennies, told apart with chance 1/3: -1 then, else -1/2."""
    answers = [[7, 1, 0], [7, 1, 5]]
    channel = queried(answers, 1, draws=3000)
    told = channel[:, (channel > 0).sum(0) == 1].sum(1)[0]
    found = through_probe(PENNIES.payoffs("defender").mean(2), channel)
    assert found.value == pytest.approx(-told - (1 - told) / 2, abs=1e-7)


def test_from_black_box_to_white_box():
    curve = [glimpsed(share) for share in (0, 0.25, 1)]
    found = values([PENNIES], [AT_ONCE, *curve, DEFENDER_FIRST], hold_out=False)
    means = [value.estimate.mean for value in found.values]
    assert means == pytest.approx([-0.5, -0.5, -0.625, -1, -1], abs=1e-9)


@settings(max_examples=25)
@given(
    arrays(np.int8, (3, 3, 4), elements=st.integers(0, 1)),
    arrays(np.int8, (3, 4), elements=st.integers(0, 2)),
)
def test_more_queries_never_help_the_defender(cost, answers):
    """Fewer are a garbling of more; all of them at most as good to the attacker as white box."""
    protocols = [AT_ONCE, *(asked(q) for q in range(5)), DEFENDER_FIRST]
    found = values([answering(game(cost), answers)], protocols, hold_out=False)
    means = [value.estimate.mean for value in found.values]
    assert means[0] == pytest.approx(means[1], abs=1e-7)
    assert all(fewer >= more - 1e-7 for fewer, more in itertools.pairwise(means))


@settings(max_examples=50)
@given(
    arrays(np.float64, (3, 4), elements=st.floats(-1, 1)),
    arrays(np.float64, (3, 3), elements=st.floats(0.01, 1)),
    arrays(np.float64, (3, 2), elements=st.floats(0.01, 1)),
)
def test_garbling_a_probe_never_hurts_the_defender(payoffs, shown, garbled):
    clear, noise = (each / each.sum(1, keepdims=True) for each in (shown, garbled))
    noisy = clear @ noise
    noisy /= noisy.sum(1, keepdims=True)
    assert through_probe(payoffs, noisy).value >= through_probe(payoffs, clear).value - 1e-7


def test_labels_tell_apart_what_right_and_wrong_do_not():
    """Matching pennies between models that err on every input, each in its own way.

    The true label is 3. Whether a model is right shows nothing, so that v stands. One label shows
    the model: -1, its worst.
    """
    labels = np.array([[7, 7, 7], [8, 8, 8]])
    for answers, value in ((labels == 3, -0.5), (labels, -1)):
        found = values([answering(PENNIES, answers)], [asked(1)]).values[0]
        assert found.estimate.mean == pytest.approx(value, abs=1e-7)


def test_whose_answers_are_not_known_cannot_be_asked():
    with pytest.raises(ValueError, match="answers of m0, m1 are not known"):
        values([PENNIES], [asked(1)])
    one = replace(PENNIES, answers={"m1": np.array([1, 2])})
    with pytest.raises(ValueError, match="answers of m0 are not known"):
        values([one], [asked(1)])
    assert values([one.part(models=["m1"])], [asked(1)]).values[0].estimate.mean == -1
    with pytest.raises(ValueError, match="equally many for each"):
        replace(one, answers={"m0": np.array([1]), "m1": np.array([1, 2])})
    with pytest.raises(ValueError, match="'m9'"):
        replace(one, answers={"m9": np.array([1])})


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="4 queries, but there are 3"):
        queried(np.zeros((2, 3)), 4)
    with pytest.raises(ValueError, match=r"\[models, inputs\]"):
        queried(np.zeros(3), 1)
    assert channel(AT_ONCE, PENNIES) is None
