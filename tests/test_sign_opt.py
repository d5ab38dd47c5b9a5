"""Sign-OPT's estimate and turn, its waves, and where they lead."""

import math

import pytest
import torch
from hyperplane import BOX, Linear, make, nearest, problem, radius

from arena import chance
from arena.actions.lp import L2, Linf
from arena.attacks.sign_opt import SignOPT, _Turns, _waves
from arena.knowledge import LabelView


def walking(space, shape=(25,), n=3, frequencies=1.0):
    """Walks that have bisected once, and the model, which forgets what it was asked so far."""
    model, x, y = problem(d=math.prod(shape), n=n)
    turn, _ = make(SignOPT(), model, x.reshape(-1, *shape), y, space)
    walk = _Turns(turn, turn.see("defender", LabelView), torch.arange(n), frequencies)
    walk.theta = 2.0**-20
    on = walk.bisect(walk.start(10))
    assert len(on) == n
    model.asked.clear()
    return model, walk, on


@pytest.mark.parametrize(("ball", "dual", "within"), [(L2, 2, 1.05), (Linf, 1, 1.25)])
def test_it_comes_close_to_the_distance_of_the_hyperplane(ball, dual, within):
    model, x, y = problem()
    r = radius(model, x, dual)
    turn, ledger = make(SignOPT(), model, x, y, ball(0.01 * float(r.min()), BOX), budget=4000)
    found = nearest(turn) / r
    assert (ledger.queries == 4000).all()
    assert (found >= 0.999).all() and (found < within).all()


@pytest.mark.parametrize("ball", [L2, Linf])
def test_the_estimate_asks_around_at_the_distance_where_the_walk_is(ball):
    model, walk, on = walking(ball(1e-3, BOX), n=1)
    gap = walk.gap.clone()
    step = walk.slope(on, 90, 1)
    probes = torch.cat(model.asked)
    assert len(probes) == 90
    size = walk.space.size(walk.given.expand_as(probes), probes)
    torch.testing.assert_close(size, gap.expand(90), rtol=1e-4, atol=0)
    vote = 2.0 * (model.labels(probes) != walk.y) - 1
    assert vote.min() == -1 and vote.max() == 1
    expected = ((vote - vote.mean())[:, None] * (probes - walk.point)).sum(0, keepdim=True)
    if ball is Linf:
        clear = expected.abs() > 1e-4 * expected.norm()
        assert clear.sum() > 20 and torch.equal(step[clear], expected[clear].sign())
    else:
        torch.testing.assert_close(step, expected / expected.norm(), atol=1e-3, rtol=0)


def test_a_turn_starts_at_twice_the_last_one_and_is_halved_until_it_is_a_mistake():
    model, walk, on = walking(L2(1e-3, BOX), n=1)
    gap, length = walk.gap.clone(), walk.length.clone()
    out = walk.space.steepest(walk.given - walk.point)  # straight in: no turn at all
    moved, stuck = walk.turn(on, -out)
    assert moved.tolist() == [0] and stuck.tolist() == [] and len(model.asked) == 1
    torch.testing.assert_close(walk.length, 2 * length)
    normal = (model.w[1] - model.w[0]) * (1 - 2 * walk.y)[:, None]
    model.asked.clear()
    moved, stuck = walk.turn(on, -walk.space.steepest(normal.float()))
    assert moved.tolist() == [] and stuck.tolist() == [0] and len(model.asked) >= 8
    size = walk.space.size(walk.given.expand(len(model.asked), -1), torch.cat(model.asked))
    torch.testing.assert_close(size, gap.expand(len(size)), rtol=1e-4, atol=0)
    moved, _ = walk.turn(on, walk.space.steepest(normal.float()))
    assert moved.tolist() == [0]
    walk.bisect(moved)
    assert (walk.gap < gap).all()


@pytest.mark.parametrize("shape", [(25,), (1, 6, 8), (3, 5, 4), (6, 7)])
@pytest.mark.parametrize("frequencies", [1.0, 0.5, 0.0])
def test_directions_hold_low_frequencies_only(shape, frequencies):
    _, walk, _ = walking(L2(1e-3, BOX), shape, frequencies=frequencies)
    noise = walk._noise(chance.keys(0, 300)).double()
    assert noise.shape == (300, *shape)
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.ones(300).double())
    rank = int(torch.linalg.matrix_rank(noise.flatten(1), atol=1e-4))
    if len(shape) == 1:
        assert rank == 25
        return
    kept = [max(round(frequencies * n), 1) for n in shape[-2:]]
    assert rank == math.prod(shape[:-2]) * math.prod(kept)
    for axis, k in zip((-2, -1), kept, strict=True):
        high = _waves(shape[axis], 1.0, noise.device)[k:].double()
        left = torch.tensordot(noise, high, dims=([axis], [1]))
        torch.testing.assert_close(left, torch.zeros_like(left), atol=1e-6, rtol=0)


def test_waves_are_orthonormal():
    waves = _waves(9, 1.0, torch.device("cpu"))
    torch.testing.assert_close(waves @ waves.T, torch.eye(9), atol=1e-6, rtol=0)


def test_low_frequencies_are_cheaper_where_the_boundary_is_smooth():
    """A plane whose normal is itself a low wave: the search has 9 dimensions instead of 36."""
    wave = torch.outer(torch.linspace(-1, 2, 6), torch.linspace(2, -1, 6)).flatten()
    model = Linear(torch.stack([wave, -wave]), torch.zeros(2))
    model.b = -model.scores(torch.ones(1, 36))[0]
    x = 0.5 + torch.rand(12, 36, generator=torch.Generator().manual_seed(0))
    y, r = model.labels(x), radius(model, x, 2)
    x = x.reshape(-1, 1, 6, 6)
    low, all_ = (
        nearest(make(SignOPT(frequencies=f), model, x, y, L2(1e-3, BOX), budget=300)[0]) / r
        for f in (0.5, 1.0)
    )
    assert low.median() < all_.median()
