"""Values by protocol: solved by hand, lawful, and covering the truth as often as they say."""

from dataclasses import replace

import numpy as np
import pytest
from coverage_of_values import coverage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from arena.empirical.game import EmpiricalGame
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
from arena.empirical.solution import solution
from arena.empirical.values import margin, values

SET = (DEFENDER_FIRST, HALF_SEEN, AT_ONCE, ATTACKER_FIRST)
FINE = Protocol("defender_first", "probe", "mixed", "example", share=0.5)
ALL = (*STANDARD, FINE)


def game(cost, **changes):
    """A zero-sum game of the defender's costs [D, A, E]."""
    cost = np.asarray(cost)
    models = tuple(f"m{i}" for i in range(cost.shape[0]))
    attacks = tuple(f"a{i}" for i in range(cost.shape[1]))
    costs = {"defender": cost, "attacker": 0 - cost}
    given = {"models": models, "attacks": attacks, "against": (None,) * len(attacks)}
    return EmpiricalGame(**given, costs=costs, **changes)


# Each model errs on all examples under its own attack: matching pennies with payoffs 0 and -1.
PENNIES = game(np.eye(2)[:, :, None].repeat(4, 2))
# Two models, two attacks, two examples: each attack breaks a model on one example.
SPLIT = game([[[1, 0], [0, 0]], [[0, 0], [0, 1]]])


def test_matching_pennies_by_every_protocol():
    found = values([PENNIES], ALL, hold_out=False)
    expected = {
        DEFENDER_FIRST: -1,
        HALF_SEEN: -0.75,  # half the time it is seen and breaks; else half the time
        AT_ONCE: -0.5,
        ATTACKER_FIRST: 0,
        DEFENDER_FIRST_PER_EXAMPLE: -1,
        MIXTURE_PER_EXAMPLE: -0.5,  # all examples are alike
        FINE: -0.75,
    }
    for protocol, value in expected.items():
        assert found[protocol].estimate.mean == pytest.approx(value, abs=1e-9), protocol
        assert found[protocol].estimate.half == pytest.approx(0, abs=1e-9)
    prices = {price.name: price.estimate.mean for price in found.prices}
    assert list(prices.values()) == pytest.approx([0.5, 0.5, 1, 0.25, 0, 0.5], abs=1e-9)


def test_a_saddle_has_no_prices():
    """By hand: row 0 is best against column 1, and the worst column for row 0 is column 1."""
    payoffs = np.array([[3, 1, 2], [0, 0, 5]])
    found = values([game(np.repeat(-payoffs[:, :, None], 3, axis=2))], SET, hold_out=False)
    assert [value.estimate.mean for value in found.values] == pytest.approx([1, 1, 1, 1], abs=1e-9)
    assert [price.estimate.mean for price in found.prices] == pytest.approx([0] * 4, abs=1e-9)


@pytest.mark.parametrize(
    ("protocol", "error"),
    [(DEFENDER_FIRST, 0.6), (ATTACKER_FIRST, -0.6), (DEFENDER_FIRST_PER_EXAMPLE, 0.6)],
)
def test_values_that_break_weak_duality_are_refused(protocol, error, monkeypatch):
    def wrong(payoffs, asked, channel=None):
        found = solution(payoffs, asked, channel)
        return replace(found, value=found.value + error * (asked == protocol))

    monkeypatch.setattr("arena.empirical.values.solution", wrong)
    with pytest.raises(ArithmeticError, match="weak duality fails"):
        values([PENNIES], hold_out=False)


def test_one_attack_per_example_takes_what_mixing_seemed_to_gain():
    """By hand: mixing halves the loss of 1/2 against one attack, not against one per example."""
    found = values([SPLIT], hold_out=False)
    means = [found[protocol].estimate.mean for protocol in STANDARD]
    # Half seen: -.5 (.5) - .25 (.5).
    assert means == pytest.approx([-0.5, -0.375, -0.25, 0, -0.5, -0.5], abs=1e-9)


def test_the_optimal_moves_are_told():
    (value,) = values([SPLIT], [AT_ONCE]).values
    (moves,) = value.solutions
    assert moves.models == pytest.approx([0.5, 0.5])
    assert moves.attacks == pytest.approx(np.array([[0.5, 0.5]]))
    assert value.scores[0] == pytest.approx([-0.25, -0.25])


def test_prices_are_paired():
    """Examples differ by up to 100, the two protocols by exactly 1/2 on each."""
    shift = np.linspace(0, 100, 4)
    shifted = game(PENNIES.costs["defender"] + shift)
    found = values([shifted], SET, hold_out=False)
    price = found.prices[0].estimate
    assert price.mean == pytest.approx(0.5) and price.half == pytest.approx(0, abs=1e-6)
    assert found[AT_ONCE].estimate.half > 10


def test_seeds_are_the_units():
    cost = PENNIES.costs["defender"]
    found = values([game(cost), game(cost * 0.5)], SET)
    # V_DF is -1 and -1/2: deviation sqrt(1/8), standard error 1/4, t_1(.975) = 12.706.
    assert found[DEFENDER_FIRST].estimate.mean == pytest.approx(-0.75)
    assert found[DEFENDER_FIRST].estimate.half == pytest.approx(12.706 / 4, abs=1e-3)


def test_a_certificate_closes_the_bracket_from_below():
    most = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    cost = PENNIES.costs["defender"].astype(int)
    cost[1, 1, 3] = 0
    found = values([game(cost, most=most)], SET, hold_out=False)
    low, high = found[DEFENDER_FIRST].bracket
    assert (low.mean, high.mean) == (-0.75, -0.75)  # the second model, certified on one of four
    low, high = found[AT_ONCE].bracket
    assert low.mean == pytest.approx(-0.75)  # mixing does not help where any attack may be the one
    assert high.mean == pytest.approx(-3 / 7)  # x = (3, 4) / 7
    price = found.prices[0].bracket
    assert price == pytest.approx((0, -3 / 7 + 0.75))


def test_missing_cells_are_refused_or_bracketed():
    cost = PENNIES.costs["defender"].copy()
    cost[0, 1] = np.nan
    holed = game(cost, missing={("m0", "a1"): "killed"})
    with pytest.raises(ValueError, match=r"1 of 4 cells.*a1 on m0.*killed.*state the least"):
        values([holed], SET)
    found = values([holed], SET, cells=(0, 1))
    assert found[DEFENDER_FIRST].estimate is None and found[DEFENDER_FIRST].unselected is None
    assert [end.mean for end in found[AT_ONCE].bracket] == pytest.approx([-1, -0.5])
    assert found.prices[0].estimate is None
    with pytest.raises(ValueError, match="the least that a cell can cost first"):
        values([holed], SET, cells=(1, 0))


def test_models_that_no_attack_was_made_for_are_named():
    assert values([PENNIES], SET).unattacked == ()
    costs, names = PENNIES.costs, (PENNIES.models, PENNIES.attacks)
    seen = EmpiricalGame(*names, (None, "m0"), costs)
    assert values([seen], SET).unattacked == ("m1",)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no game"):
        values([])
    with pytest.raises(ValueError, match="same models and attacks"):
        values([PENNIES, PENNIES.part(attacks=["a1", "a0"])])
    with pytest.raises(ValueError, match="cannot be halved"):
        values([PENNIES.on([0])])
    with pytest.raises(ValueError, match="give the probe's channel"):
        solution(PENNIES.payoffs("defender"), HALF_SEEN)
    with pytest.raises(KeyError, match="no value was computed for protocol at once"):
        values([PENNIES], [DEFENDER_FIRST])[AT_ONCE]


def test_the_margin_is_hoeffdings():
    # 2 exp(-2 n eps^2) = delta for a single cell.
    assert 2 * np.exp(-2 * 100 * margin(1, 1, 100) ** 2) == pytest.approx(0.05)
    assert values([PENNIES], SET).margin == pytest.approx(np.sqrt(np.log(2 * 4 / 0.05) / 8))
    assert values([game(3 * PENNIES.costs["defender"])], SET).margin is None


few = settings(max_examples=25)
small = arrays(
    np.int8,
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 5)),
    elements=st.integers(0, 3),
)


def means(cost, protocols=ALL):
    found = values([game(cost)], protocols, hold_out=False)
    return np.array([value.estimate.mean for value in found.values])


@few
@given(small)
def test_the_scores_average_to_the_value_and_duality_holds(cost):
    found = values([game(cost)], ALL, hold_out=False)  # raises where duality fails
    for value in found.values:
        (moves,) = value.solutions
        assert value.estimate.mean == pytest.approx(moves.value, abs=1e-7)
    assert all(price.estimate.mean >= -1e-7 for price in found.prices)


@few
@given(small, st.randoms(use_true_random=False))
def test_relabelling_changes_nothing(cost, chance):
    axes = [chance.sample(range(n), n) for n in cost.shape]
    assert means(cost[np.ix_(*axes)]) == pytest.approx(means(cost), abs=1e-7)


@few
@given(small, st.floats(0.01, 50), st.floats(-20, 20))
def test_affine_changes_go_through(cost, scale, shift):
    expected = scale * means(cost) - shift
    assert means(scale * cost + shift) == pytest.approx(expected, abs=1e-6 * (scale + 20))


@few
@given(small, st.integers(0, 100))
def test_every_value_rises_with_the_payoffs(cost, seed):
    """So that payoffs between two bounds have values between those of the bounds."""
    gain = np.random.default_rng(seed).random(cost.shape)
    half = {True: np.hstack([np.eye(len(cost)), np.ones((len(cost), 1))]) / 2, False: None}
    for protocol in ALL:
        shown = half[protocol.observation == "probe"]
        low = solution(0.0 - cost, protocol, shown).value
        assert low <= solution(gain - cost, protocol, shown).value + 1e-9


@few
@given(small, st.integers(0, 100))
def test_a_tighter_bracket_is_inside_a_looser_one(cost, seed):
    slack = np.random.default_rng(seed).integers(0, 3, (2, cost.shape[0], cost.shape[2]))
    most = cost.max(1) + slack[0]
    tight, loose = (
        values([game(cost, most=bound)], ALL, hold_out=False) for bound in (most, most + slack[1])
    )
    for one, other in zip(tight.values, loose.values, strict=True):
        (low, high), (lower, higher) = one.bracket, other.bracket
        assert lower.mean - 1e-7 <= low.mean <= one.estimate.mean + 1e-7
        assert one.estimate.mean == pytest.approx(high.mean, abs=1e-7)
        assert high.mean == pytest.approx(higher.mean, abs=1e-7)
    for one, other in zip(tight.prices, loose.prices, strict=True):
        assert one.bracket[0] >= other.bracket[0] - 1e-7
        assert one.bracket[0] - 1e-7 <= one.estimate.mean <= one.bracket[1] + 1e-7
        assert one.bracket[1] <= other.bracket[1] + 1e-7


def drawn(truth, examples, generator):
    """Independent costs of 0 and 1 with these means [D, A]."""
    return game((generator.random((*truth.shape, examples)) < truth[..., None]).astype(np.int8))


def test_held_out_values_of_a_null_game_are_unbiased_where_the_others_are_not():
    """All cells are one coin: every protocol is worth -1/2 and every price nothing."""
    generator, rounds, n = np.random.default_rng(1), 100, 50
    selected, held = [], []
    for _ in range(rounds):
        found = values([drawn(np.full((4, 4), 0.5), n, generator)], SET)
        kinds = [*found.values, *found.prices]
        selected.append([each.estimate.mean for each in kinds])
        held.append([each.unselected.mean for each in kinds])
    truth = np.array([-0.5] * 4 + [0.0] * 4)
    errors = np.std(held, axis=0) / rounds**0.5
    assert (np.abs(np.mean(held, axis=0) - truth) < 4 * errors).all()
    gaps = np.mean(selected, axis=0) - truth
    assert (gaps[4:] > 0.01).all()  # prices that are not there
    assert gaps[0] < -0.01 and gaps[3] > 0.01


@pytest.mark.slow
def test_intervals_cover_known_games():
    """`coverage_of_values.py` prints what docs/values.md quotes; here fewer, so within 4 errors."""
    found = coverage(replications=150)
    # Where all cells are alike values sit in a kink: maxima of equals are biased by selection.
    smooth = [one for one in found if "alike" not in one.game]
    assert len(smooth) == 36
    error = (0.95 * 0.05 / 150) ** 0.5
    for one in smooth:
        assert one.covered > 0.94 - 4 * error, one
