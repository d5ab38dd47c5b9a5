"""Solvers and conversions against nashpy, Gambit and OpenSpiel, where these are installed.

Games are random, tied (small whole numbers: accuracy matrices tie constantly) and degenerate
(copies of actions). pygambit is GPL: a reference here, never imported by the package.
"""

import io
import warnings

import numpy as np
import pytest

from arena.empirical.conversions import normal_form, to_nashpy, to_openspiel
from arena.empirical.game import EmpiricalGame
from arena.solvers.alpha_rank import alpha_rank
from arena.solvers.bimatrix import all_equilibria
from arena.solvers.nfg import read, write
from arena.solvers.quantal import quantal_response
from arena.solvers.zero_sum import solve

pytestmark = pytest.mark.peers

ROUNDS = 40


def games(kind, rounds=ROUNDS):
    """Both players' payoffs, 2 to 4 actions each."""
    generator = np.random.default_rng(0)
    for _ in range(rounds):
        shape = tuple(generator.integers(2, 5, 2))
        if kind == "random":
            yield generator.standard_normal(shape), generator.standard_normal(shape)
        else:
            row, column = generator.integers(0, 4 if kind == "tied" else 3, (2, *shape)) / 4
            if kind == "degenerate":  # a copy of an action of each player
                row, column = (np.vstack([each, each[:1]]) for each in (row, column))
                row, column = (np.hstack([each, each[:, :1]]) for each in (row, column))
            yield row, column


def same(ours, theirs):
    """Whether two sets of pairs of mixtures agree to 1e-6."""
    ours, theirs = ([np.concatenate(pair) for pair in each] for each in (ours, theirs))
    return len(ours) == len(theirs) and all(
        any(np.abs(one - other).max() < 1e-6 for other in theirs) for one in ours
    )


def played(row, column):
    models, attacks = (tuple(map(str, range(n))) for n in row.shape)
    costs = {"defender": -row[:, :, None], "attacker": -column[:, :, None]}
    return EmpiricalGame(models, attacks, (None,) * len(attacks), costs)


def test_all_equilibria_of_random_games_are_nashpys():
    pytest.importorskip("nashpy")
    for row, column in games("random"):
        ours = [(nash.row, nash.column) for nash in all_equilibria(row, column).extreme]
        # By vertices: in 13 of these 40 its support enumeration loses one to rounding.
        assert same(ours, list(to_nashpy(played(row, column)).vertex_enumeration()))


@pytest.mark.parametrize("kind", ["tied", "degenerate"])
def test_what_nashpy_finds_in_tied_games_is_among_ours(kind):
    """Support enumeration misses equilibria there: each of its answers lies in a subset of ours."""
    pytest.importorskip("nashpy")
    missed = 0
    for row, column in games(kind):
        found = all_equilibria(row, column)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that it may have missed some
            theirs = list(to_nashpy(played(row, column)).support_enumeration())
        for x, y in theirs:
            assert max((row @ y).max() - x @ row @ y, (x @ column).max() - x @ column @ y) < 1e-9
            assert any(
                inside(x, subset.rows) and inside(y, subset.columns)
                for component in found.components
                for subset in component
            )
        missed += len(theirs) < len(found.extreme)
    print(f"{kind}: support enumeration lists fewer equilibria in {missed} of {ROUNDS} games")
    assert missed


def inside(mixture, vertices):
    """Whether a mixture is a convex combination of the vertices [k, m]."""
    from scipy.optimize import nnls

    _, rest = nnls(np.vstack([vertices.T, np.ones(len(vertices))]), np.append(mixture, 1))
    return rest < 1e-6


@pytest.mark.parametrize("kind", ["random", "tied", "degenerate"])
def test_all_equilibria_are_gambits(kind):
    gambit = pytest.importorskip("pygambit")
    for row, column in games(kind):
        ours = [(nash.row, nash.column) for nash in all_equilibria(row, column).extreme]
        theirs = []
        game = gambit.Game.from_arrays(row, column)
        for profile in gambit.nash.enummixed_solve(game, rational=kind != "random").equilibria:
            pair = tuple(
                np.array([float(p) for _, p in profile[player]]) for player in game.players
            )
            if not any(same([pair], [other]) for other in theirs):  # it lists some twice
                theirs.append(pair)
        assert same(ours, theirs), (row, column, ours, theirs)


@pytest.mark.parametrize("kind", ["random", "tied", "degenerate"])
def test_zero_sum_values_are_theirs(kind):
    gambit = pytest.importorskip("pygambit")
    pytest.importorskip("nashpy")
    for row, _ in games(kind):
        value = solve(row).value
        x, y = to_nashpy(played(row, -row)).linear_program()
        assert value == pytest.approx(x @ row @ y, abs=1e-7)
        game = gambit.Game.from_arrays(row, -row)
        (profile,) = gambit.nash.lp_solve(game, rational=False).equilibria
        assert value == pytest.approx(float(profile.payoff(next(iter(game.players)))), abs=1e-7)


@pytest.mark.parametrize("kind", ["random", "tied", "degenerate"])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_alpha_rank_is_openspiels(kind, alpha):
    pytest.importorskip("pyspiel")
    alpharank = pytest.importorskip("open_spiel.python.egt.alpharank")
    compared = 0
    for row, column in games(kind):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # its rates overflow, to 0
            try:
                found = alpharank.compute([row, column], m=50, alpha=alpha, use_inf_alpha=False)
            except ValueError as error:  # rates of 0 leave it several sinks
                assert "Expected 1 stationary distribution" in str(error)
                continue
        compared += 1
        assert alpha_rank(row, column, alpha).masses.ravel() == pytest.approx(found[2], abs=1e-6)
    print(f"{kind}, alpha {alpha}: OpenSpiel answers {compared} of {ROUNDS} games")
    assert compared > ROUNDS / 4


def test_quantal_responses_are_gambits():
    gambit = pytest.importorskip("pygambit")
    for row, column in games("random", 10):
        game = gambit.Game.from_arrays(row, column)
        (theirs,) = gambit.qre.logit_solve_lambda(game, lam=[2.0])
        ours = quantal_response(row, column, 2.0)
        for player, mixture in zip(game.players, (ours.row, ours.column), strict=True):
            found = [float(p) for _, p in theirs.profile[player]]
            assert mixture == pytest.approx(found, abs=1e-5)


def test_gambit_reads_what_is_written_and_is_read():
    gambit = pytest.importorskip("pygambit")
    row, column = np.array([[0, -1 / 3, 1e-9], [2, -5e300, 0.1]]), np.ones((2, 3)) / 7
    form = normal_form(played(row, column), 'with "quotes"')
    game = gambit.read_nfg(io.BytesIO(write(form).encode()))
    assert game.title == form.title
    for ours, theirs in zip(form.payoffs, game.to_arrays(dtype=float), strict=True):
        assert np.array_equal(ours, theirs.astype(float))
    back = read(game.to_nfg())
    assert (back.rows, back.columns, back.players) == (form.rows, form.columns, form.players)
    for ours, theirs in zip(form.payoffs, back.payoffs, strict=True):
        assert np.array_equal(ours, theirs)


def test_openspiel_gets_names_and_payoffs():
    pytest.importorskip("pyspiel")
    row, column = np.array([[0, -1, 0.5], [0.25, 1, 3]]), np.arange(6.0).reshape(2, 3)
    found = to_openspiel(played(row, column))
    assert [[found.row_utility(i, j) for j in range(3)] for i in range(2)] == row.tolist()
    assert [[found.col_utility(i, j) for j in range(3)] for i in range(2)] == column.tolist()
    assert (found.row_action_name(1), found.col_action_name(2)) == ("1", "2")
