"""The searches for the nearest mistake, on models where its distance is known."""

import pytest
import torch
from linear import BOX, NO_PRIZE, linear_model, play, points, turn_of
from torch import nn

from arena import Labelled
from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.ddn import DDN
from arena.attacks.deepfool import DeepFool
from arena.attacks.engines.descent import Search
from arena.attacks.engines.walks import Walks
from arena.attacks.fmn import FMN
from arena.attacks.sigma_zero import SigmaZero
from arena.costs import Targeted
from arena.learners.networks import MLP

DUAL = {L1: torch.inf, L2: 2.0, Linf: 1.0}

# Attack, geometry, and by what share more than the least distance it may end with before a
# hyperplane. The norms of DDN and FMN end by changes of 0.001; in L1, FMN's Euclidean steps leave
# something on features beside the best. DeepFool goes its overshoot beyond.
SEARCHES = [
    (DDN(), L2, 0.001),
    (FMN(), L2, 0.001),
    (FMN(), L1, 0.04),
    (FMN(), Linf, 0.001),
    (DeepFool(), L2, 0.0201),
    (DeepFool(), L1, 0.0201),
    (DeepFool(), Linf, 0.0201),
]
EVERY = [*((attack, space) for attack, space, _ in SEARCHES), (FMN(), L0), (SigmaZero(), L0)]


def name(value):
    return value.__name__ if isinstance(value, type) else type(value).__name__


def nearest(attack, space, module, data, cost=None, **turn):
    """What `nearest` finds with nothing in the ball but the input itself."""
    made, ledger = turn_of(attack, space(0, data.box), module, data, cost, **turn)
    x, size = attack.nearest(made)
    found = size.isfinite()
    assert torch.equal(size[found], made.player.actions.size(data.x, x)[found])
    assert torch.equal(x[~found], data.x[~found])
    assert ((x >= data.box[0]) & (x <= data.box[1])).all()
    return x, size, ledger


@torch.no_grad()
def boundaries(module, data, order):
    """The distance [B, K] to the boundary with each other answer; infinite for the right one."""
    logits, w = module(data.x), module.weight
    right = logits.gather(1, data.y[:, None])
    normal = (w[data.y][:, None] - w).norm(order, dim=2)
    distance = ((right - logits) / normal).clamp(min=0)
    return distance.scatter(1, data.y[:, None], torch.inf)


def many(classes, n=40):
    """Inputs of as many classes as that, each dealt with the label of its answer or another."""
    return Labelled(points(n).x, torch.arange(n) % classes, classes, BOX)


class Exact(nn.Module):
    """A linear model whose rows are added up in one order, whatever the batch.

    Feature 0 has no weight. Where it is above 2 the logits are NaN.
    """

    def __init__(self, classes=3):
        super().__init__()
        self.weight = nn.Parameter(linear_model(12, classes).weight.detach().clone())
        self.weight.data[:, 0] = 0.0

    def forward(self, x):
        logits = (x[:, None] * self.weight).double().sum(2).float()
        return logits + torch.where(x[:, :1] > 2, torch.nan, 0.0)


@pytest.mark.parametrize(("attack", "space", "over"), SEARCHES, ids=name)
def test_the_distance_to_a_hyperplane_is_found(attack, space, over):
    module, data = linear_model(), many(2)
    x, size, _ = nearest(attack, space, module, data)
    least = boundaries(module, data, DUAL[space]).amin(1)
    assert 0 < (least == 0).sum() < len(data)
    assert (module(x).argmax(1) != data.y).all()
    assert (size >= least * (1 - 1e-5) - 1e-5).all(), "nothing nearer is a mistake"
    assert (size <= least * (1 + over) + 1e-5).all()


@pytest.mark.parametrize(("answers", "classes"), [(5, 5), (3, 2)])
@pytest.mark.parametrize(("attack", "space", "over"), SEARCHES, ids=name)
def test_of_several_hyperplanes_a_near_one_is_found(attack, space, over, answers, classes):
    """With an answer more than classes, the last is a refusal, and as good a mistake.

    DeepFool compares the boundaries, so it finds the nearest. DDN and FMN go down one loss, and may
    end before another than the nearest; seldom, and not far off.
    """
    module, data = linear_model(classes=answers), many(classes)
    x, size, _ = nearest(attack, space, module, data)
    least = boundaries(module, data, DUAL[space]).amin(1)
    assert 0 < (least == 0).sum() < len(data)
    assert (module(x).argmax(1) != data.y).all()
    assert (size >= least * (1 - 1e-5) - 1e-5).all(), "nothing nearer is a mistake"
    if isinstance(attack, DeepFool):
        assert (size <= least * (1 + over) + 1e-5).all()
    excess = (size / least)[least > 0]
    assert excess.median() <= 1.0201 and excess.mean() <= 1.06


@pytest.mark.parametrize("attack", [FMN(), SigmaZero()], ids=name)
def test_few_features_change_in_l0(attack):
    module, data = linear_model(40), points(60, 40)
    data = Labelled(data.x.clamp(-3, 3), data.y, 2, (-3.0, 3.0))
    _, size, _ = nearest(attack, L0, module, data)
    logits = module(data.x)
    margin = (logits.gather(1, data.y[:, None]) - logits.gather(1, 1 - data.y[:, None]))[:, 0]
    w = module.weight[data.y] - module.weight[1 - data.y]
    gain = torch.maximum(w * (data.x + 3), w * (data.x - 3)).sort(1, descending=True).values
    least = (gain.cumsum(1) <= margin[:, None]).sum(1) + 1  # so many of the best, each to its side
    least = torch.where(margin < 0, 0, least)
    assert least.max() > 2
    assert (size >= least).all()
    assert ((size - least) <= 1).float().mean() >= 0.9 and (size - least).max() <= 3


def test_sigma_zero_asks_for_less_at_a_mistake_and_for_more_elsewhere():
    """One step by hand, from changes of 0.45 and -0.4, for the same gradient."""
    attack = SigmaZero(step=0.2, adapt=0.1)
    data = Labelled(torch.full((2, 3), 0.5), torch.tensor([0, 0]), 2)
    turn, _ = turn_of(attack, L0(0), linear_model(3), data)
    rows, change = torch.arange(2), torch.tensor([0.45, -0.4, 0.0]).repeat(2, 1)
    walks = Walks(rows, 0 * rows, turn.keys, 0 * rows, data.x, data.y, data.x + change, None)
    search = Search(attack, turn)
    walks.own = attack.begin(search, walks)
    gradient = torch.tensor([-1.0, 1.0, 0.0]).repeat(2, 1)
    moved = attack.advance(search, walks, torch.tensor([1.0, -1.0]), gradient) - data.x
    # Adam's first step is the sign: on towards the mistake, or, at one, back towards no change;
    # there what is left, 0.25 and 0.2, is below the new threshold.
    torch.testing.assert_close(walks.own.cut, torch.tensor([0.28, 0.32]))
    torch.testing.assert_close(moved[0], torch.tensor([0.5, -0.5, 0.0]))
    torch.testing.assert_close(moved[1], torch.tensor([0.0, 0.0, 0.0]))


@pytest.mark.parametrize(("attack", "space"), [(DDN(), L2), (FMN(), L2), (FMN(), Linf)], ids=name)
def test_features_at_the_side_of_the_box_do_not_hold_a_walk_back(attack, space):
    """Nine of twelve features cannot move where the gradient points: the others do it alone."""
    module = linear_model(classes=2)
    module.bias.data.zero_()
    w = module.weight[1] - module.weight[0]
    blocked = torch.arange(12) < 9
    x = torch.where(blocked, torch.where(w > 0, 1.0, 0.0), 0.5).detach()[None]
    module.bias.data[0] = (w @ x[0] + 0.1 * w[~blocked].norm()).detach()
    data = Labelled(x, torch.zeros(1, dtype=torch.int64), 2)
    _, size, _ = nearest(attack, space, module, data)
    least = 0.1 * w[~blocked].norm() / w[~blocked].norm(DUAL[space])
    torch.testing.assert_close(size[0], least.detach(), rtol=2e-3, atol=0)


@pytest.mark.parametrize(("attack", "space"), EVERY, ids=name)
def test_more_steps_never_hurt(attack, space):
    module = MLP((16,)).build((12,), 3, seed=5)
    data = Labelled(points(60).x, torch.arange(60) % 3, 3, BOX)
    sizes = []
    for steps in (15, 60, 240):
        more = type(attack)(steps=steps)
        sizes.append(nearest(more, space, module, data)[1])
    found = [size.isfinite().sum() for size in sizes]
    assert found[0] <= found[1] <= found[2] and found[2] >= 0.95 * len(data)
    both = sizes[0].isfinite() & sizes[1].isfinite()
    few, some, lots = (size[both].mean() for size in sizes)
    assert some <= 1.005 * few and lots <= 1.005 * some


@pytest.mark.parametrize(("attack", "space", "over"), SEARCHES, ids=name)
def test_in_a_ball_the_search_ends_with_it_and_what_is_played_is_legal(attack, space, over):
    module, data = linear_model(), many(2)
    least = boundaries(module, data, DUAL[space]).amin(1)
    eps = float(least[least > 0].median())
    ball = space(eps, BOX)
    moved, ledger = play(attack, ball, module, data)
    assert ball.contains(data.x, moved).all()
    wrong = module(moved).argmax(1) != data.y
    assert wrong[least * (1 + over) + 1e-4 < eps].all() and not wrong[least > eps * 1.0001].any()
    assert 0.3 < wrong.float().mean() < 1
    _, whole = play(attack, space(0.0, BOX), module, data)
    assert (ledger.gradients <= whole.gradients).all()
    assert (ledger.gradients[least == 0] <= 4).all(), "what is mistaken already leaves at once"
    assert (ledger.gradients[least > eps] == whole.gradients[least > eps]).all()


@pytest.mark.parametrize(("attack", "space"), EVERY, ids=name)
def test_the_target_is_the_costs(attack, space):
    module, data = linear_model(classes=5), many(5)
    if space is L0:
        data = Labelled(data.x.clamp(-3, 3), data.y, 5, (-3.0, 3.0))
    x, size, _ = nearest(attack, space, module, data, Targeted(2))
    assert size[data.y == 2].isinf().all(), "no answer is a mistake for the target there"
    found = size.isfinite()
    assert (module(x[found]).argmax(1) == 2).all()
    assert found[data.y != 2].float().mean() > 0.9
    if space is not L0:
        least = boundaries(module, data, DUAL[space])[:, 2]
        assert (size >= least * (1 - 1e-5) - 1e-5)[data.y != 2].all()


@pytest.mark.parametrize(("attack", "space"), EVERY, ids=name)
def test_results_depend_neither_on_the_batch_size_nor_on_broken_neighbors(attack, space):
    module, attack = Exact(), type(attack)(steps=30)
    data = Labelled(points(12).x.clamp(-1.9, 1.9), torch.arange(12) % 3, 3, (-3.0, 3.0))
    x, size, _ = nearest(attack, space, module, data)
    assert size.isfinite().float().mean() > 0.9
    for rows in (1, 5):
        again, sizes, _ = nearest(attack, space, module, data, rows=rows)
        assert torch.equal(again, x) and torch.equal(sizes, size)
    broken = torch.arange(12) % 4 == 0
    flagged = data.x.clone()
    flagged[broken, 0] = 2.5
    half = Labelled(flagged, data.y, 3, data.box)
    other, sizes, _ = nearest(attack, space, module, half, NO_PRIZE)
    assert sizes[broken].isinf().all(), "NaN wins nothing"
    assert torch.equal(other[~broken], x[~broken]) and torch.equal(sizes[~broken], size[~broken])


@pytest.mark.parametrize(("attack", "space"), [(DDN, L2), (FMN, L1), (SigmaZero, L0)], ids=name)
def test_a_step_is_a_pass_and_a_gradient(attack, space):
    module, data = linear_model(), points()
    _, size, ledger = nearest(attack(steps=6), space, module, data)
    right = size > 0
    assert (ledger.queries[right] == 7).all() and (ledger.gradients[right] == 6).all()


@pytest.mark.parametrize(("candidates", "gradients"), [(9, 4), (2, 2)])
def test_a_step_of_deepfool_is_a_pass_and_a_gradient_for_each_candidate(candidates, gradients):
    """On a linear model one step is enough; with two candidates they are the likeliest two."""
    module, data = linear_model(classes=5), many(5)
    data = Labelled(data.x, module(data.x).argmax(1), 5, BOX)
    _, size, ledger = nearest(DeepFool(candidates=candidates), L2, module, data)
    assert (ledger.queries == 2).all()
    # The second pass finds the mistake; the engine differentiates before it looks who is done.
    assert (ledger.gradients == 2 * gradients).all()
    distance, logits = boundaries(module, data, 2.0), module(data.x)
    likeliest = logits.scatter(1, data.y[:, None], -torch.inf).topk(gradients, dim=1).indices
    least = distance.gather(1, likeliest).amin(1)
    torch.testing.assert_close(size, 1.02 * least, rtol=1e-4, atol=1e-5)
    assert candidates == 9 or (least > distance.amin(1)).any()


@pytest.mark.parametrize(
    ("attack", "space", "advice"),
    [
        (DDN(), Linf(0.1), "use actions=l2, or strategy=fmn"),
        (SigmaZero(), L2(0.1), "use actions=l0"),
        (DeepFool(), L0(3), "use actions=linf, l2 or l1"),
    ],
    ids=name,
)
def test_spaces_that_do_not_fit_are_refused(attack, space, advice):
    with pytest.raises(ValueError, match=advice):
        play(attack, space, linear_model(), points())


@pytest.mark.parametrize("space", [L0, L1, L2, Linf])
def test_a_displacement_is_shortened_as_the_projection_does_where_the_box_is_far(space):
    generator = torch.Generator().manual_seed(0)
    moved = torch.randn(30, 2, 7, generator=generator)
    moved[0] = 0.0
    for eps in (0, 1, 3, 50):
        short = space(eps).shortened(moved, torch.full((30,), float(eps)))
        expected = space(eps, BOX).project(torch.zeros_like(moved), moved)
        torch.testing.assert_close(short, expected, rtol=0, atol=2e-6)
    assert torch.equal(space(0).shortened(moved, torch.full((30,), torch.inf)), moved)
    each = torch.linspace(0, 4, 30).floor()
    sizes = space(0).size(torch.zeros_like(moved), space(0).shortened(moved, each))
    assert (sizes <= each * (1 + 1e-5)).all()
