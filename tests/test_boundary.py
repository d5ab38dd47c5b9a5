"""The Boundary Attack's two steps, and where they lead."""

import torch
from hyperplane import BOX, make, nearest, problem, radius

from arena.actions.lp import L2
from arena.attacks.boundary import FIRST, RATE, Boundary, _Steps
from arena.knowledge import LabelView

SPACE = L2(1e-3, BOX)


def walking(n=6):
    """Walks that have bisected once, and the model, which forgets what it was asked so far."""
    model, x, y = problem(n=n)
    turn, _ = make(Boundary(), model, x, y, SPACE)
    walk = _Steps(turn, turn.see("defender", LabelView), torch.arange(n))
    walk.theta = 2.0**-20
    on = walk.bisect(walk.start(10))
    assert len(on) == n
    model.asked.clear()
    return model, walk, on


def test_it_converges_to_the_distance_of_the_hyperplane_and_ends_there():
    model, x, y = problem(d=9)
    turn, ledger = make(Boundary(), model, x, y, SPACE)
    found, r = nearest(turn), radius(model, x, 2)
    assert (found >= 0.999 * r).all()
    torch.testing.assert_close(found, r, rtol=5e-3, atol=1e-3)
    assert (ledger.queries < 5000).all()


def test_a_step_sideways_keeps_the_distance_and_has_its_length():
    model, walk, on = walking()
    before, gap = walk.point.clone(), walk.gap.clone()
    moved = walk.sidestep(on, 1)
    (asked,) = model.asked
    assert (asked > BOX[0]).all() and (asked < BOX[1]).all()  # the box cuts none of these
    torch.testing.assert_close(SPACE.size(walk.given, asked), gap, rtol=1e-5, atol=0)
    # Orthogonal, then back onto the sphere: at an angle whose tangent is the step's length.
    chord = 2 * gap * torch.sin(torch.atan(torch.tensor(FIRST)) / 2)
    torch.testing.assert_close(SPACE.size(before, asked), chord, rtol=1e-3, atol=0)
    stays = model.labels(asked) != walk.y
    assert torch.equal(moved, on[stays]) and 0 < len(moved) < len(on)
    assert torch.equal(walk.point[stays], asked[stays])
    assert torch.equal(walk.point[~stays], before[~stays])
    expected = torch.where(stays, FIRST * RATE, FIRST / RATE)
    torch.testing.assert_close(walk.sideways, expected)


def test_a_step_towards_the_input_is_its_share_of_the_gap():
    model, walk, on = walking()
    before, gap = walk.point.clone(), walk.gap.clone()
    walk.approach(on[1:])
    (asked,) = model.asked
    torch.testing.assert_close(SPACE.size(walk.given[1:], asked), (1 - FIRST) * gap[1:])
    stays = model.labels(asked) != walk.y[1:]
    assert not stays.any()  # from the boundary there is no way straight in
    assert torch.equal(walk.point, before)
    torch.testing.assert_close(walk.towards[1:], torch.full((5,), FIRST / RATE))
    walk.point[:] = walk.given + 2 * (walk.point - walk.given)  # a mistake, far from the boundary
    walk.approach(on)
    assert (walk.towards > FIRST).all() and (walk.point != before).all()


def test_half_of_the_steps_sideways_stay_mistakes():
    walk, on = walking(n=20)[1:]
    moved = asked = 0
    for t in range(1, 200):
        stayed = walk.sidestep(on, t)
        walk.approach(stayed)
        if t > 50:
            moved, asked = moved + len(stayed), asked + len(on)
    assert 0.45 < moved / asked < 0.55


def test_one_feature_has_no_step_sideways_and_ends_all_the_same():
    model, x, y = problem(d=1)
    turn, _ = make(Boundary(), model, x, y, SPACE, budget=500)
    found = nearest(turn) / radius(model, x, 2)
    assert (found >= 0.999).all() and (found < 1.01).all()
