"""Alpha-rank: closed forms, the naive chain where that is finite, and alpha where it is not."""

import numpy as np
import pytest

from arena.solvers.alpha_rank import alpha_rank, stationary
from arena.solvers.published import PENNIES

RANDOM = np.random.default_rng(0).random((2, 4, 3))


def naive(a, b, alpha, population):
    """The fixation probabilities of 1903.01373 written out, and the null vector of their chain."""
    m, n = a.shape
    chain = np.zeros((m * n, m * n))

    def rate(gain):
        if gain == 0:
            return 1 / population
        return (1 - np.exp(-alpha * gain)) / (1 - np.exp(-population * alpha * gain))

    for i in range(m):
        for j in range(n):
            for k in range(m):
                if k != i:
                    chain[i * n + j, k * n + j] = rate(a[k, j] - a[i, j])
            for k in range(n):
                if k != j:
                    chain[i * n + j, i * n + k] = rate(b[i, k] - b[i, j])
    generator = chain - np.diag(chain.sum(1))
    system = np.vstack([generator.T, np.ones(m * n)])
    return np.linalg.lstsq(system, np.append(np.zeros(m * n), 1), rcond=None)[0].reshape(m, n)


@pytest.mark.parametrize(("alpha", "population"), [(0.1, 50), (1.0, 2), (1.0, 10), (3.0, 5)])
def test_the_chain_of_the_paper_where_it_can_be_solved_naively(alpha, population):
    found = alpha_rank(*RANDOM, alpha, population)
    assert found.masses == pytest.approx(naive(*RANDOM, alpha, population), abs=1e-9)
    assert not found.floored


def test_one_player_s_masses_are_in_closed_form():
    # Alone, the chain is reversible: masses go with exp(alpha (population - 1) payoff).
    payoffs = np.array([0.3, 0.0, 0.5])
    found = alpha_rank(payoffs[:, None], np.zeros((3, 1)), 2.0, 4)
    weights = np.exp(2.0 * 3 * payoffs)
    assert found.masses[:, 0] == pytest.approx(weights / weights.sum())


def test_small_masses_are_as_accurate_as_large_ones():
    payoffs = np.array([1.0, 0.0])
    found = alpha_rank(payoffs[:, None], np.zeros((2, 1)), 4.0, 50)
    assert found.masses[1, 0] == pytest.approx(np.exp(-4.0 * 49), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1000.0, np.inf])
def test_matching_pennies_has_no_favourite(alpha):
    found = alpha_rank(PENNIES, -PENNIES, alpha)
    assert found.masses == pytest.approx(np.full((2, 2), 0.25))
    assert [len(sink) for sink in found.sinks] == [4]


@pytest.mark.parametrize("alpha", [1000.0, np.inf])
def test_where_dominance_decides_all_mass_ends_at_the_equilibrium(alpha):
    dilemma = np.array([[2.0, 0.0], [3.0, 1.0]])
    found = alpha_rank(dilemma, dilemma.T, alpha)
    assert found.masses == pytest.approx(np.array([[0, 0], [0, 1]]))
    assert [sink.tolist() for sink in found.sinks] == [[[1, 1]]]


def test_coordination_has_two_sinks_that_share_by_symmetry():
    found = alpha_rank(np.eye(2), np.eye(2))
    assert sorted(sink.tolist() for sink in found.sinks) == [[[0, 0]], [[1, 1]]]
    assert found.masses == pytest.approx(np.eye(2) / 2)
    assert found.floored


def test_a_tie_is_crossed_both_ways():
    found = alpha_rank([[1.0], [1.0], [0.0]], np.zeros((3, 1)))
    assert found.masses[:, 0] == pytest.approx([0.5, 0.5, 0])
    assert [sink.tolist() for sink in found.sinks] == [[[0, 0], [1, 0]]]


@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0, 1000.0, 1e6, np.inf])
def test_masses_are_finite_at_any_alpha(alpha):
    generator = np.random.default_rng(1)
    for scale in (1e-9, 1.0, 1e9):
        for _ in range(5):
            a, b = scale * generator.random((2, 6, 5))
            masses = alpha_rank(a, b, alpha).masses
            assert np.isfinite(masses).all()
            assert masses.min() >= 0
            assert masses.sum() == pytest.approx(1)


def test_the_limit_is_approached_and_lives_on_the_sinks():
    for seed in range(10):
        a, b = np.random.default_rng(seed).integers(0, 6, (2, 4, 4)).astype(float)
        limit = alpha_rank(a, b)
        inside = np.zeros(a.shape, bool)
        for sink in limit.sinks:
            inside[tuple(sink.T)] = True
        assert limit.masses[~inside].sum() < 1e-12
        if len(limit.sinks) == 1:
            assert alpha_rank(a, b, 100.0).masses == pytest.approx(limit.masses, abs=1e-9)


def test_relabelling_and_units():
    a, b = RANDOM
    found = alpha_rank(a, b, 5.0).masses
    rows, columns = [2, 0, 3, 1], [1, 2, 0]
    moved = alpha_rank(a[rows][:, columns], b[rows][:, columns], 5.0).masses
    assert moved == pytest.approx(found[rows][:, columns])
    assert alpha_rank(1e9 * a + 3, 1e9 * b, 5e-9).masses == pytest.approx(found)
    assert pytest.approx(found) == alpha_rank(b.T, a.T, 5.0).masses.T


def test_blocks_make_no_difference():
    rates = np.random.default_rng(2).random((300, 300)) ** 8  # more than two blocks
    generator = rates - np.diag(rates.sum(1))
    assert stationary(rates) @ generator == pytest.approx(np.zeros(300), abs=1e-14)
    assert stationary(rates[:1, :1]).tolist() == [1]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="alpha must be >= 0"):
        alpha_rank(PENNIES, -PENNIES, -1.0)
    with pytest.raises(ValueError, match="population >= 2"):
        alpha_rank(PENNIES, -PENNIES, 1.0, 1)
    with pytest.raises(ValueError, match="alpha must be >= 0"):
        alpha_rank(PENNIES, -PENNIES, np.nan)
    with pytest.raises(ValueError, match="one shape"):
        alpha_rank(PENNIES, [[1.0]])
    with pytest.raises(ValueError, match="state 1 cannot reach"):
        stationary(np.array([[0.0, 1.0], [0.0, 0.0]]))


def test_openspiel_agrees_where_it_is_finite():
    alpharank = pytest.importorskip("open_spiel.python.egt.alpharank")
    a, b = RANDOM
    theirs = alpharank.compute([a, b], alpha=1.0, m=10)[2]
    assert alpha_rank(a, b, 1.0, 10).masses.ravel() == pytest.approx(theirs, abs=1e-6)
