"""Learning dynamics: what is known of their paths and of where their averages go."""

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.solvers import zero_sum
from arena.solvers.dynamics import (
    best_responses,
    fictitious_play,
    multiplicative_weights,
    orbit,
    regret_matching_plus,
    replicator,
)
from arena.solvers.published import BIASED, PENNIES, SHAPLEY

SMALL = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed))


def last(steps, count):
    *_, step = islice(steps, count)
    return step


def gap(payoffs, step):
    return zero_sum.certified(payoffs, step.row_average, step.column_average).gap


def test_best_responses_rest_at_a_saddle():
    saddle = np.array([[3.0, 1, 2], [0, 0, 5]])
    before, cycle = orbit(best_responses(saddle, -saddle, (1, 2)))
    # Row 1 stays against column 2; column 0 answers it, row 0 that, column 1 that: nobody moves.
    assert before == [(1, 2), (1, 0)]
    assert cycle == [(0, 1)]


def test_best_responses_go_round_matching_pennies_and_shapleys_game():
    assert orbit(best_responses(PENNIES, -PENNIES, alternating=False)) == (
        [],
        [(0, 0), (0, 1), (1, 1), (1, 0)],
    )
    _, cycle = orbit(best_responses(PENNIES, -PENNIES))
    assert cycle == [(0, 1), (1, 0)]
    _, cycle = orbit(best_responses(*SHAPLEY))
    assert len(cycle) == 3


def test_an_orbit_needs_a_state_to_come_back():
    with pytest.raises(ValueError, match="no state repeats among 5"):
        orbit(iter(range(5)))


def test_the_averages_of_fictitious_play_converge_in_zero_sum_games():
    assert gap(BIASED, last(fictitious_play(BIASED, -BIASED), 20_000)) < 0.05
    assert gap(BIASED, last(fictitious_play(BIASED, -BIASED), 20)) > 0.05


def test_fictitious_play_never_settles_in_shapleys_game():
    # Its only equilibrium is uniform. Play goes round (0, 0) (0, 1) (1, 1) (1, 2) (2, 2) (2, 0) in
    # runs whose lengths grow in geometric progression, so the averages never come to rest.
    steps = list(islice(fictitious_play(*SHAPLEY), 20_000))
    far = [np.abs(step.row_average - 1 / 3).max() for step in steps[10_000:]]
    assert min(far) > 0.1
    pairs = [(int(step.row.argmax()), int(step.column.argmax())) for step in steps]
    runs = [0]
    for before, after in pairwise(pairs):
        runs.append(0) if after != before else None
        runs[-1] += 1
    assert len(runs) < 40  # and not thousands
    assert runs[-3] > runs[-6] > runs[-9] > runs[-12]


def test_fictitious_play_remembers_what_was_played():
    *_, step = islice(fictitious_play(BIASED, -BIASED, (2, 1)), 7)
    played = list(islice(fictitious_play(BIASED, -BIASED, (2, 1)), 7))
    assert played[0].row.tolist() == [0, 0, 1]
    assert step.row_average == pytest.approx(np.mean([one.row for one in played], axis=0))
    assert step.column_average == pytest.approx(np.mean([one.column for one in played], axis=0))


@settings(max_examples=20)
@given(SMALL, st.integers(1, 6), st.integers(1, 6), st.sampled_from([1e-9, 1.0, 1e9]))
def test_multiplicative_weights_keep_their_promise(generator, m, n, scale):
    payoffs = scale * generator.random((m, n))
    count = 200
    step = last(multiplicative_weights(payoffs, -payoffs), count)

    def bound(actions):
        return np.sqrt(2 * np.log(actions) / count) + np.sqrt(np.log(actions) / 8) / count

    assert gap(payoffs, step) <= scale * (bound(m) + bound(n)) + 1e-12 * scale


def test_multiplicative_weights_at_a_fixed_rate_are_the_exponentials_of_payoffs():
    # Pennies: span 2. After one uniform step nothing differs; from a biased game it does.
    game = np.array([[1.0, 0.0], [0.0, 0.0]])
    *_, step = islice(multiplicative_weights(game, -game, rate=2.0), 2)
    assert step.row == pytest.approx([np.e / (np.e + 1), 1 / (np.e + 1)])
    assert step.column == pytest.approx([1 / (np.e + 1), np.e / (np.e + 1)])


@settings(max_examples=20)
@given(SMALL, st.integers(1, 6), st.integers(1, 6), st.sampled_from([1e-9, 1.0, 1e9]))
def test_regret_matching_plus_converges_on_average(generator, m, n, scale):
    payoffs = scale * generator.random((m, n))
    assert gap(payoffs, last(regret_matching_plus(payoffs, -payoffs), 400)) <= 0.05 * scale


def test_regret_matching_plus_does_not_depend_on_the_payoffs_units():
    a = last(regret_matching_plus(BIASED, -BIASED), 50)
    b = last(regret_matching_plus(1e9 * BIASED, -1e9 * BIASED), 50)
    assert a.row_average == pytest.approx(b.row_average)


def test_the_replicator_goes_round_matching_pennies_on_its_constant_of_motion():
    start = np.array([0.7, 0.3]), np.array([0.4, 0.6])
    steps = list(islice(replicator(PENNIES, -PENNIES, start, step=0.05), 1000))
    constant = [step.row.prod() * step.column.prod() for step in steps]
    assert np.ptp(constant) < 1e-5 * constant[0]
    assert min(step.row[0] for step in steps) < 0.3  # it does go round
    assert steps[-1].row_average == pytest.approx([0.5, 0.5], abs=0.05)


def test_what_dies_out_stays_dead_but_for_a_floor():
    game = np.array([[1.0, 1.0], [0.0, 0.0]])
    start = np.array([0.0, 1.0]), np.array([0.5, 0.5])
    assert last(replicator(game, -game, start), 100).row.tolist() == [0, 1]
    floored = last(replicator(game, -game, start, step=0.5, floor=0.1), 100)
    assert floored.row == pytest.approx([0.9, 0.1])
    assert floored.column == pytest.approx([0.5, 0.5])


def test_all_dynamics_play_mixtures():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 3, 4))
    start = np.full(3, 1 / 3), np.full(4, 1 / 4)
    for steps in (
        fictitious_play(a, b),
        multiplicative_weights(a, b),
        regret_matching_plus(a, b),
        replicator(a, b, start, step=0.5),
        replicator(a, b, start, step=0.5, floor=0.05),
    ):
        for step in islice(steps, 60):
            for mixture in (step.row, step.column, step.row_average, step.column_average):
                assert mixture.min() >= 0
                assert mixture.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (lambda: best_responses(PENNIES, PENNIES, (2, 0)), "outside a game of 2 x 2"),
        (lambda: fictitious_play(PENNIES, PENNIES, (0, -3)), "outside a game of 2 x 2"),
        (lambda: fictitious_play(PENNIES, BIASED), "one shape"),
        (lambda: multiplicative_weights(PENNIES, PENNIES, rate=0.0), "rate must be above 0"),
        (lambda: replicator(PENNIES, PENNIES, ([1, 0], [0.5, 0.6])), "sum to 1"),
        (lambda: replicator(PENNIES, PENNIES, ([1, 0], [1, 0]), step=-1.0), "step must be"),
        (lambda: replicator(PENNIES, PENNIES, ([1, 0], [1, 0]), floor=0.6), r"in \[0, 0.5\]"),
        (lambda: regret_matching_plus([[np.nan]], [[0.0]]), r"payoffs\[0, 0\] is nan"),
    ],
)
def test_bad_input_is_refused(start, message):
    with pytest.raises(ValueError, match=message):
        next(start())
