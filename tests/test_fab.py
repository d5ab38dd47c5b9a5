"""FAB on hyperplanes, where the nearest mistake is known."""

import pytest
import torch
from linear import BOX, dual, linear_model, margins, play, points, turn_of

from arena import Labelled
from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.fab import FAB, onto
from arena.costs import Targeted

SPACES = [Linf(1.0), L2(1.0), L1(1.0)]
WIDE = [Linf(1.0, BOX), L2(1.0, BOX), L1(1.0, BOX)]


def name(space):
    return type(space).__name__


@pytest.mark.parametrize("space", SPACES, ids=name)
def test_a_displacement_reaches_the_hyperplane_with_nothing_to_spare(space):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 9, generator=generator)
    slope = torch.randn(200, 9, generator=generator)
    height = torch.randn(200, generator=generator) * 2
    moved = onto(space, x, slope, height)
    assert ((x + moved) >= -1e-6).all() and ((x + moved) <= 1 + 1e-6).all()
    sign = -height.sign()[:, None] * slope.sign()
    room = torch.where(sign > 0, 1 - x, x)
    reachable = (slope.abs() * room).sum(1) >= height.abs()
    assert 0.2 < reachable.float().mean() < 0.98
    after = height + (slope * moved).sum(1)
    torch.testing.assert_close(
        after[reachable], torch.zeros(int(reachable.sum())), atol=2e-5, rtol=0
    )
    torch.testing.assert_close(moved[~reachable], (sign * room)[~reachable])
    # Optimal: what is left free moves at one pace (L-inf, L2); nothing flatter moves while
    # something steeper has room (L1).
    way, w = moved.abs(), slope.abs()
    free = (way < room - 1e-6) & reachable[:, None]
    pace = way if isinstance(space, Linf) else way / w
    for row in range(200):
        if isinstance(space, L1):
            flattest = w[row][way[row] > 1e-6].min() if (way[row] > 1e-6).any() else torch.inf
            assert not (free[row] & (w[row] > flattest + 1e-6)).any()
        elif free[row].any():
            paces = pace[row][free[row]]
            assert (paces.max() - paces.min()) <= 1e-4 * (1 + paces.max())
            assert (pace[row][~free[row]] <= paces.max() + 1e-4).all()


@pytest.mark.parametrize("space", WIDE, ids=name)
def test_the_nearest_mistake_on_a_linear_model_is_found(space):
    module, data = linear_model(), points()
    turn, _ = turn_of(FAB(60), type(space)(0.0, BOX), module, data)
    x, size = FAB(60).nearest(turn)
    margin = margins(module, data.x, data.y)
    w = module.weight[0] - module.weight[1]
    expected = (margin / dual(w, space)).clamp(min=0)
    assert (size >= expected - 1e-4).all(), "nothing nearer is a mistake"
    assert (size <= 1.06 * expected + 1e-4).all(), "a step goes 5 % beyond"
    assert (module(x).argmax(1) != data.y).all()


def test_what_is_in_the_ball_ends_the_search_and_what_is_not_is_projected():
    module, data = linear_model(), points()
    space = Linf(0.2, BOX)
    moved, ledger = play(FAB(40), space, module, data)
    assert space.contains(data.x, moved).all()
    w = module.weight[0] - module.weight[1]
    distance = margins(module, data.x, data.y) / dual(w, Linf(1.0, BOX))
    wrong = module(moved).argmax(1) != data.y
    assert wrong[distance < 0.19].all() and not wrong[distance > 0.2].any()
    assert (ledger.gradients[distance < 0.19] <= 3).all(), "one step is enough"
    assert (ledger.gradients[distance > 0.2] == 40).all()


def test_targets_are_the_costs():
    module = linear_model(classes=5)
    generator = torch.Generator().manual_seed(3)
    data = Labelled(torch.randn(40, 12, generator=generator), torch.arange(40) % 5, 5, BOX)
    moved, ledger = play(FAB(30), L2(50.0, BOX), module, data, Targeted(2))
    assert (module(moved).argmax(1) == 2)[data.y != 2].all()
    assert torch.equal(moved[data.y == 2], data.x[data.y == 2])
    _, several = play(FAB(30), L2(0.0, BOX), module, data)
    assert several.queries.max() == 4 * 32, "a walk to each of the other classes"
    assert (ledger.queries[data.y == 2] == 2).all(), "nothing to be had, seen at the first pass"


def test_restarts_begin_elsewhere_and_never_hurt():
    module, data = linear_model(classes=4), points()
    data = Labelled(data.x, data.y, 4, BOX)
    sizes = []
    for restarts in (1, 3):
        attack = FAB(5, restarts=restarts)
        turn, _ = turn_of(attack, L2(0.0, BOX), module, data)
        sizes.append(attack.nearest(turn)[1])
    assert (sizes[1] <= sizes[0]).all()


def test_other_spaces_are_refused():
    with pytest.raises(ValueError, match="FAB cannot serve actions=L0; use actions=linf, l2 or l1"):
        play(FAB(), L0(3, BOX), linear_model(), points())
