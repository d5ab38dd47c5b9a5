"""Attacks that weigh distance against loss, and JSMA, against closed forms and their own laws."""

import pytest
import torch
from linear import NO_PRIZE, linear_model, margins, play, turn_of
from test_descent import Steady
from torch import nn

from arena import Labelled
from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.carlini_wagner import CarliniWagner
from arena.attacks.carlini_wagner_l0 import CarliniWagnerL0
from arena.attacks.carlini_wagner_linf import CarliniWagnerLinf
from arena.attacks.ead import EAD
from arena.attacks.engines.boxed import place, variable
from arena.attacks.engines.tradeoff import Weights
from arena.attacks.engines.walks import Walks
from arena.attacks.jsma import JSMA, most_salient
from arena.attacks.lbfgs import LBFGS, inverse_times
from arena.costs import Targeted

UNIT = (0.0, 1.0)
SHORT = [
    (CarliniWagner(30, searches=3), L2),
    (CarliniWagnerLinf(30, patience=5), Linf),
    (CarliniWagnerL0(30, rounds=6), L0),
    (EAD(30, searches=3), L1),
    (EAD(30, searches=3, rule="en"), L1),
    (LBFGS(30, searches=3), L2),
    (JSMA(4), L0),
    (JSMA(4, targets=3), L0),
    (JSMA(4, theta=-0.5), L0),
]
short = pytest.mark.parametrize(
    ("strategy", "space"), SHORT, ids=lambda part: str(getattr(part, "rule", part))[:40]
)


def centred(classes=2, seed=0):
    """A linear model whose logits are equal at the middle of the box."""
    module = linear_model(12, classes, seed)
    module.bias.data = -module.weight.data.sum(1) / 2
    return module


def near_the_boundary(module, n=40, spread=0.075):
    """Inputs near the middle of the box, labelled as the model has them: no side is in the way.

    Those are left out that already lie on the boundary, but for a last step of a descent.
    """
    noise = 2 * torch.rand(2 * n, 12, generator=torch.Generator().manual_seed(3)) - 1
    x = 0.5 + spread * noise
    top = module(x).topk(2, dim=1).values
    x = x[top[:, 0] - top[:, 1] > 0.1][:n]
    return Labelled(x, module(x).argmax(1), len(module.bias), UNIT)


def nearest(strategy, space, module, data, cost=None, **turn):
    made, ledger = turn_of(strategy, space(0), module, data, cost, closing=True, **turn)
    x, size = strategy.nearest(made)
    assert ((x >= data.box[0]) & (x <= data.box[1])).all()
    found = size.isfinite()
    assert torch.equal(x[~found], data.x[~found])
    if getattr(strategy, "rule", "l1") == "l1":
        torch.testing.assert_close(space(0).size(data.x, x)[found], size[found])
    return x, size, ledger


@pytest.mark.parametrize(
    ("strategy", "space", "dual", "typical", "worst"),
    [
        (CarliniWagner(), L2, 2, 1.01, 1.15),
        (LBFGS(), L2, 2, 1.01, 1.1),
        (CarliniWagnerLinf(), Linf, 1, 1.01, 1.05),
        # Its momentum overshoots the boundary, and its squared distance spreads the change.
        (EAD(), L1, torch.inf, 1.1, 1.2),
    ],
    ids=lambda part: type(part).__name__,
)
def test_on_a_linear_model_the_distance_to_the_boundary_is_found(
    strategy, space, dual, typical, worst
):
    module = centred()
    data = near_the_boundary(module)
    w = (module.weight[0] - module.weight[1]).detach()
    x, size, _ = nearest(strategy, space, module, data)
    ratio = size * w.norm(dual) / margins(module, data.x, data.y).detach()
    assert (module(x).argmax(1) != data.y).all()
    assert (ratio > 1 - 1e-4).all(), "nearer than the boundary"
    assert ratio.median() < typical and ratio.max() < worst


@pytest.mark.parametrize(
    ("strategy", "space", "dual"),
    [(CarliniWagner(), L2, 2), (LBFGS(), L2, 2), (CarliniWagnerLinf(), Linf, 1)],
    ids=lambda part: type(part).__name__,
)
def test_values_at_the_ends_of_the_box_move_like_others(strategy, space, dual):
    """Black and white pixels, where tanh itself has no slope; the boundary lies inwards."""
    module = centred()
    w = (module.weight[0] - module.weight[1]).detach()
    x = (w < 0).float()[None]
    module.bias.data = torch.tensor([0.0, 1.0]) - module.weight.data @ x[0]
    data = Labelled(x, torch.tensor([1]), 2, UNIT)
    _, size, _ = nearest(strategy, space, module, data)
    assert 1 - 1e-4 < float(size * w.norm(dual)) < 1.03


def test_the_fewest_features_are_found():
    """On a linear model, those whose weight times their room is largest."""
    module = centred()
    data = near_the_boundary(module, spread=0.3)
    gap = margins(module, data.x, data.y).detach()
    slope = (module.weight[0] - module.weight[1]).detach() * (1 - 2 * data.y[:, None])
    room = torch.maximum(slope * data.x, slope * (data.x - 1))
    gained = room.sort(1, descending=True).values.cumsum(1)
    fewest = (gained <= gap[:, None]).sum(1) + 1
    _, size, _ = nearest(CarliniWagnerL0(), L0, module, data)
    assert len(fewest.unique()) > 1
    assert (size >= fewest).all()
    assert (size == fewest).float().mean() > 0.9 and (size <= fewest + 1).all()


def test_a_saliency_map_takes_the_best_of_all_pairs():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 7, 90):
        up, down = torch.randn(2, 30, n, generator=generator)
        free = torch.rand(30, n, generator=generator) < 0.8
        free[0] = False
        pair, found = most_salient(up, down, free)
        both = (up[:, :, None] + up[:, None]).clamp(min=0)
        both = both * (down[:, :, None] + down[:, None]).clamp(min=0)
        allowed = free[:, :, None] & free[:, None] & ~torch.eye(n, dtype=torch.bool)
        best = both.masked_fill(~allowed, 0.0).flatten(1).amax(1)
        assert torch.equal(found, best > 0) and not found[0]
        p, q = pair[found].unbind(1)
        rows = found.nonzero().squeeze(1)
        assert torch.equal(both[rows, p, q], best[found]) and allowed[rows, p, q].all()


def test_jsma_moves_pairs_to_the_end_of_the_box_until_the_first_mistake():
    net, data = Steady(), images()
    x, size, ledger = nearest(JSMA(6), L0, net, data)
    changed = x != data.x
    assert (x[changed] == 1).all() and (size[size.isfinite()] % 2 == 0).all()
    assert (size[size.isfinite()] <= 12).all() and size.isfinite().any()
    moves = torch.where(size.isfinite(), size / 2, torch.nan)
    seen = moves.isfinite() & (moves > 0)
    # The target's query; a pass for each place, and another for each that is left or found wrong.
    assert torch.equal(ledger.queries[seen], (1 + (moves + 1) + (moves + 1) + 1)[seen].long())
    down, _, _ = nearest(JSMA(6, theta=-0.25), L0, net, data)
    assert (down <= data.x).all() and (data.x - down <= 0.25 * 6 + 1e-6).all()


def images(n=30):
    """Inputs of four classes, most as `Steady` has them, some on the sides of the box."""
    x = torch.rand(n, 12, generator=torch.Generator().manual_seed(1))
    x = torch.where(x < 0.1, 0.0, torch.where(x > 0.9, 1.0, x))
    y = Steady()(x).argmax(1)
    y[::7] = (y[::7] + 1) % 4
    return Labelled(x, y, 4, UNIT)


PREFIXES = [
    (CarliniWagner(40, searches=2), CarliniWagner(80, searches=4), L2),
    (CarliniWagnerLinf(40, patience=5), CarliniWagnerLinf(80, patience=5), Linf),
    (CarliniWagnerL0(40, rounds=5), CarliniWagnerL0(80, rounds=10), L0),
    (EAD(40, searches=2), EAD(80, searches=4), L1),
    (EAD(40, searches=2, rule="en"), EAD(80, searches=4, rule="en"), L1),
    (LBFGS(40, searches=2), LBFGS(80, searches=4), L2),
    (JSMA(1), JSMA(6), L0),
    (JSMA(6), JSMA(6, targets=3), L0),
]


@pytest.mark.parametrize(("less", "more", "space"), PREFIXES)
def test_more_searches_never_hurt(less, more, space):
    net, data = Steady(), images()
    _, before, _ = nearest(less, space, net, data)
    _, after, _ = nearest(more, space, net, data)
    assert (after <= before).all() and (after < before).any()


@short
def test_nothing_depends_on_the_batch(strategy, space):
    net, data = Steady(), images()
    x, size, ledger = nearest(strategy, space, net, data, rows=64)
    for rows, n in ((7, 30), (1, 10)):
        again, other, books = nearest(strategy, space, net, data[:n], rows=rows)
        assert torch.equal(again, x[:n]) and torch.equal(other, size[:n])
        assert torch.equal(books.queries, ledger.queries[:n])


@short
def test_a_mistake_in_the_ball_ends_the_search(strategy, space):
    net, data = Steady(), images()
    _, size, ledger = nearest(strategy, space, net, data)
    wrong = net(data.x).argmax(1) != data.y
    assert wrong.any() and (size[wrong] == 0).all() and (ledger.gradients[wrong] <= 1).all()
    wide = space(12)
    moved, early = play(strategy, wide, net, data, closing=True)
    assert wide.contains(data.x, moved).all()
    found = size.isfinite() & ~wrong
    assert found.any() and (net(moved).argmax(1) != data.y)[found | wrong].all()
    assert (early.queries <= ledger.queries).all()
    if not isinstance(strategy, JSMA):  # whose walks end at their first mistake anyway
        assert (early.queries[found] < ledger.queries[found]).any()
    still, _ = play(strategy, space(0), net, data, closing=True)
    assert torch.equal(still, data.x)


@short
def test_the_goal_is_the_costs(strategy, space):
    net, data = Steady(), images()
    x, size, _ = nearest(strategy, space, net, data, Targeted(2))
    answers, found = net(x).argmax(1), size.isfinite()
    assert (answers[found] == 2).all() and (data.y[found] != 2).all() and found.any()
    _, free, _ = nearest(strategy, space, net, data)
    assert found.sum() <= free.isfinite().sum()


class Cracked(nn.Module):
    """`Steady`, but NaN for inputs whose last value is 0.75; no search moves it, as it counts 0."""

    def __init__(self):
        super().__init__()
        self.inner = Steady()
        self.inner.inner[1].weight.data[:, -1] = 0.0

    def forward(self, x):
        return torch.where(x[:, -1:] == 0.75, torch.nan, self.inner(x))


@short
def test_nan_on_some_leaves_the_others_alone(strategy, space):
    net, data = Cracked(), images()
    data.x[:, -1] = 0.25
    _, clean, _ = nearest(strategy, space, net, data, NO_PRIZE)
    cracked = torch.arange(len(data)) % 3 == 0
    data.x[cracked, -1] = 0.75
    x, size, _ = nearest(strategy, space, net, data, NO_PRIZE)
    assert size[cracked].isinf().all() and torch.equal(size[~cracked], clean[~cracked])
    assert x.isfinite().all()


@pytest.mark.parametrize(("strategy", "space"), SHORT[:6], ids=str)
def test_passes_are_what_the_docstrings_promise(strategy, space):
    net, data = Steady(), images()
    _, _, ledger = nearest(strategy, space, net, data)
    right = net(data.x).argmax(1) == data.y
    assert (ledger.queries[right] == 31).all() and (ledger.gradients[right] == 30).all()


@short
def test_other_spaces_are_refused(strategy, space):
    for other in {L0, L1, L2, Linf} - {space}:
        with pytest.raises(ValueError, match=r"use actions="):
            turn_of(strategy, other(1), Steady(), images())


def test_jsma_must_move():
    with pytest.raises(ValueError, match="not 0"):
        JSMA(theta=0.0)


def test_the_elastic_net_ranks_by_its_own_measure():
    net, data = Steady(), images()
    rule = EAD(60, searches=3, beta=0.5, rule="en")
    x, size, _ = nearest(rule, L1, net, data)
    change = (x - data.x)[size.isfinite()]
    expected = 0.5 * change.abs().sum(1) + change.square().sum(1)
    torch.testing.assert_close(size[size.isfinite()], expected)
    y, _, _ = nearest(EAD(60, searches=3, beta=0.5), L1, net, data)
    change = (y - data.x)[size.isfinite()]
    assert (0.5 * change.abs().sum(1) + change.square().sum(1) >= expected - 1e-5).all()


def walks(n):
    x = torch.zeros(n, 2)
    whole = torch.arange(n)
    return Walks(whole, whole, whole, torch.zeros_like(whole), x, whole, x, None)


def test_weights_are_bracketed_on_a_scale_of_logarithms():
    some = walks(3)
    weights, t = Weights.first(some, 1.0), some.t
    seen = []
    for won in ([1, 0, 1], [1, 0, 0], [0, 1, 1]):
        weights.won = torch.tensor(won, dtype=torch.bool)
        assert not weights.next(t, 2).any()
        assert weights.next(t + 1, 2).all() and not weights.won.any()
        seen.append(weights.c)
    expected = [[1 / 4, 10, 1 / 4], [1 / 16, 100, 1 / 2], [1 / 8, 1000**0.5, 8**-0.5]]
    torch.testing.assert_close(torch.stack(seen), torch.tensor(expected))


@pytest.mark.parametrize("box", [(0.0, 1.0), (-3.0, 5.0)])
def test_variables_and_places_are_inverse_and_the_ends_are_met(box):
    x = torch.linspace(*box, 101)
    torch.testing.assert_close(place(variable(x, box), box), x, atol=1e-6, rtol=0)
    assert variable(x, box).isfinite().all()
    assert place(torch.tensor([-9.0, 9.0]), box).tolist() == list(box)


def test_the_inverse_hessian_takes_the_last_change_of_gradient_to_that_of_place():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 8, 8, generator=generator)
    hessian = root @ root.mT + torch.eye(8)
    places = torch.randn(5, 3, 8, generator=generator)
    slopes = places @ hessian
    torch.testing.assert_close(
        inverse_times(places, slopes, slopes[:, -1]), places[:, -1], atol=1e-4, rtol=1e-3
    )
    # Pairs that say nothing leave the Hessian of the squared distance, 2.
    none = torch.zeros_like(places)
    assert torch.equal(inverse_times(none, none, slopes[:, 0]), slopes[:, 0] / 2)
