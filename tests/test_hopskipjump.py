"""HopSkipJump against the distance to a hyperplane, its budget and its randomness."""

import hyperplane
import pytest
import torch
from hyperplane import BOX, Linear, nearest, problem, radius
from torch import Tensor

from arena.actions.lp import L2, Linf, Lp
from arena.attacks.hopskipjump import HopSkipJump, _Jumps
from arena.knowledge import LabelView
from arena.ledger import Ledger


def make(model, x, y, space, *cost, budget=None, batch_size=64, seed=0, **fields):
    strategy = HopSkipJump(**{"initial_evals": 100} | fields)
    options = {"budget": budget, "batch_size": batch_size, "seed": seed}
    return hyperplane.make(strategy, model, x, y, space, *cost, **options)


@pytest.mark.parametrize(("ball", "dual", "within"), [(L2, 2, 1.05), (Linf, 1, 1.1)])
def test_it_comes_close_to_the_distance_of_the_hyperplane(ball, dual, within):
    model, x, y = problem()
    r = radius(model, x, dual)
    space = ball(0.01 * float(r.min()), BOX)
    turn, ledger = make(model, x, y, space, budget=4000)
    found = nearest(turn) / r
    assert (ledger.queries == 4000).all()
    assert (found >= 0.999).all() and (found < within).all()
    early = nearest(make(model, x, y, space, budget=40)[0]) / r
    assert (early > 1.2).all()


def walking(space: Lp, n: int, budget: int | None = None) -> tuple[Linear, Ledger, _Jumps, Tensor]:
    """Walks that have bisected once."""
    model, x, y = problem(n=n)
    turn, ledger = make(model, x, y, space, budget=budget)
    walk = _Jumps(turn, turn.see("defender", LabelView), torch.arange(n))
    on = walk.bisect(walk.start(10))
    assert len(on) == n
    model.asked.clear()
    return model, ledger, walk, on


def place(model: Linear, walk: _Jumps, deep: float) -> Tensor:
    """Puts the only walk at an L2 distance `deep` beyond the boundary; returns the unit normal."""
    normal = (model.w[1] - model.w[0]) * (1 - 2 * walk.y)[:, None]
    scores = model.scores(walk.point)
    beyond = (scores[:, 1] - scores[:, 0]) * (1 - 2 * walk.y) / normal.norm()
    normal = normal / normal.norm()
    walk.point += (deep - beyond)[:, None] * normal
    return normal


@pytest.mark.parametrize("ball", [L2, Linf])
@pytest.mark.parametrize(("deep", "least", "most"), [(0, -0.3, 0.3), (0.2, 0.4, 0.95), (1.1, 1, 1)])
def test_the_estimate_is_equation_16(ball, deep, least, most):
    """Of probes on a sphere, at the boundary half are mistakes, beyond it more, soon all."""
    model, _, walk, on = walking(ball(1e-3, BOX), 1)
    place(model, walk, deep * float(walk.gap) / walk.d)
    found = walk.direction(on, 90, 1)
    probes = torch.cat(model.asked)
    assert len(probes) == 90 and len(model.asked) == 2  # a batch of 64, and the rest
    vote = 2.0 * (model.labels(probes) != walk.y) - 1
    assert least <= vote.mean() <= most
    vote = vote if most == 1 else vote - vote.mean()
    expected = (vote[:, None] * (probes - walk.point)).sum(0, keepdim=True)
    if ball is Linf:
        clear = expected.abs() > 1e-4 * expected.norm()
        assert clear.sum() > 20 and torch.equal(found[clear], expected[clear].sign())
    else:
        torch.testing.assert_close(found, expected / expected.norm(), atol=1e-3, rtol=0)


def test_an_estimate_leaves_half_of_the_queries_for_the_step():
    _, ledger, walk, on = walking(L2(1e-3, BOX), 3, budget=80)
    before, gap = ledger.queries.clone(), walk.gap.clone()
    direction = walk.direction(on, 100, 1)
    assert (ledger.queries - before == (80 - before + 1) // 2).all()
    moved, _ = walk.step(on, direction, 1)
    walk.bisect(moved)
    assert (walk.gap < gap).all()


@pytest.mark.parametrize("ball", [L2, Linf])
def test_a_step_away_from_the_mistakes_is_halved_until_given_up(ball):
    model, _, walk, on = walking(ball(1e-3, BOX), 1)
    away = walk.space.steepest(-place(model, walk, 1e-5).float())
    point, gap = walk.point.clone(), float(walk.space.size(walk.given, walk.point))
    moved, stuck = walk.step(on, away, 4)
    assert moved.tolist() == [] and stuck.tolist() == [0] and torch.equal(walk.point, point)
    lengths = walk.space.size(point.expand(len(model.asked), -1), torch.cat(model.asked))
    halved = gap / 2 * 0.5 ** torch.arange(len(lengths))
    assert len(lengths) > 6
    torch.testing.assert_close(lengths, halved, atol=1e-5, rtol=1e-3)
