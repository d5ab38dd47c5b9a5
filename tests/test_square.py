"""Square against closed forms on a linear model, its budget, its randomness and its windows."""

from dataclasses import replace
from functools import partial

import hyperplane
import pytest
import torch
from hyperplane import ERROR, play
from torch import Tensor

from arena import chance
from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.square import Square, _Bumps, _bumps, _Squares, _window
from arena.core import Turn
from arena.costs import ErrorRate, Negation, Refusal, Targeted
from arena.ledger import Ledger


class Linear:
    """Logits w x + b, added up in one order whatever the batch; K = 2 or 3 rows of w."""

    def __init__(self, w: Tensor, b: Tensor, classes: int | None = None) -> None:
        self.w, self.b = w.flatten(1), b
        self.classes = classes or len(w)
        self.asked: list[Tensor] = []

    def logits(self, x: Tensor) -> Tensor:
        self.asked.append(x.clone())
        return (x.flatten(1)[:, None].double() * self.w).sum(2).float() + self.b

    def labels(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(1)

    def published(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(1)

    @property
    def module(self) -> torch.nn.Module:
        raise PermissionError


scored = partial(hyperplane.make, answers="scores")
"""The turn of an attacker who sees scores, and its ledger."""


def make(*game: object, steps: int = 1000, **options: object) -> tuple[Turn, Ledger]:
    return scored(Square(steps=steps), *game, **options)


def linear(shape: tuple[int, ...], seed: int, classes: int = 2) -> Linear:
    g = torch.Generator().manual_seed(seed)
    return Linear(torch.randn(classes, *shape, generator=g), torch.zeros(classes))


def inputs(model: Linear, shape: tuple[int, ...], n: int = 12) -> tuple[Tensor, Tensor]:
    """Inputs well inside the box [0, 1], labelled as the model answers them."""
    x = 0.2 + 0.6 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))
    return x, model.labels(x)


def radius(model: Linear, x: Tensor, dual: float) -> Tensor:
    """The distance of each input to the decision boundary of two classes."""
    gap = model.w[1] - model.w[0]
    logits = model.logits(x)
    return (logits[:, 1] - logits[:, 0]).abs() / gap.norm(dual)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 5), (20,), (4, 9)])
@pytest.mark.parametrize(("ball", "dual", "margin"), [(Linf, 1, 1.3), (L2, 2, 2.5)])
def test_errs_where_the_ball_holds_an_error_and_not_where_it_holds_none(shape, ball, dual, margin):
    # The margin of L2 is wide because these weights are white noise, and its bumps smooth.
    model = linear(shape, seed=2)
    x, y = inputs(model, shape, 4)
    for i, r in enumerate(radius(model, x, dual)):
        near = make(model, x[i : i + 1], y[i : i + 1], ball(margin * float(r)), seed=i)[0]
        far = make(model, x[i : i + 1], y[i : i + 1], ball(0.999 * float(r)), seed=i, steps=50)[0]
        assert model.labels(play(near)) != y[i]
        assert model.labels(play(far)) == y[i]


@pytest.mark.parametrize("ball", [Linf, L2])
@pytest.mark.parametrize("budget", [0, 1, 2, 7, 50])
def test_spends_the_budget_and_no_more_and_sees_the_same_search(ball, budget):
    model = linear((1, 6, 6), seed=3)
    x, y = inputs(model, (1, 6, 6))
    space = ball(0.3 * float(radius(model, x, 1 if ball is Linf else 2).min()))
    short, ledger = make(model, x, y, space, budget=budget, steps=100)
    output = play(short)
    assert (ledger.queries == budget).all()
    if budget == 0:
        assert torch.equal(output, x)
        return
    asked = [batch.clone() for batch in model.asked[-budget:]]
    model.asked.clear()
    long, ledger = make(model, x, y, space, steps=100)
    play(long)
    assert (ledger.queries == 101).all()
    for rationed, free in zip(asked, model.asked, strict=False):
        assert torch.equal(rationed, free)


def test_examples_leave_one_by_one_and_pay_only_for_themselves():
    model = linear((1, 6, 6), seed=4)
    x, y = inputs(model, (1, 6, 6))
    r, eps = radius(model, x, 1), 1.5 * float(radius(model, x, 1).median())
    turn, ledger = make(model, x, y, Linf(eps), budget=200, steps=1000)
    lost = model.labels(play(turn)) != y
    assert lost[r < eps / 1.3].all() and not lost[r > eps].any()
    assert lost.any() and not lost.all()
    assert (ledger.queries[lost] < 200).all() and (ledger.queries[~lost] == 200).all()
    wrong, ledger = make(model, x, 1 - y, Linf(0.1))
    assert torch.equal(play(wrong), x) and (ledger.queries == 1).all()


@pytest.mark.parametrize("ball", [Linf, L2])
def test_a_start_that_is_worse_than_the_input_is_walked_from_but_not_played(ball):
    model = linear((1, 6, 6), seed=3)
    x, y = inputs(model, (1, 6, 6))
    space = ball(0.3 * float(radius(model, x, 1 if ball is Linf else 2).min()))
    output = play(make(model, x, y, space, budget=2)[0])
    started = model.asked[-1]
    worse = ERROR.surrogate(model.logits(started), y) > ERROR.surrogate(model.logits(x), y)
    assert worse.any() and not worse.all()
    assert torch.equal(output[worse], x[worse]) and torch.equal(output[~worse], started[~worse])
    model.asked.clear()
    play(make(model, x, y, space, budget=3)[0])
    still = ((model.asked[-1] - started).abs() < 1e-6) & ((started - x).abs() > 1e-6)
    assert still.flatten(1).any(1).all()


@pytest.mark.parametrize("ball", [Linf, L2])
def test_the_batch_size_changes_nothing_and_the_seed_does(ball):
    model = linear((2, 6, 6), seed=5)
    x, y = inputs(model, (2, 6, 6))
    space = ball(float(radius(model, x, 1 if ball is Linf else 2).median()))
    outputs = [play(make(model, x, y, space, batch_size=b, steps=40)[0]) for b in (1, 5, 64)]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], play(make(model, x, y, space, steps=40, seed=1)[0]))


def test_a_target_is_reached_and_others_are_not_settled_for():
    model = linear((1, 6, 6), seed=6, classes=3)
    x = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model.b = -model.logits(x).mean(0)
    y = model.labels(x)
    turn, ledger = make(model, x, y, Linf(0.3), Targeted(target=2), budget=400)
    output = play(turn)
    source = y != 2
    assert len(y.unique()) == 3
    assert (model.labels(output)[source] == 2).all()
    assert (ledger.queries[~source] == 1).all() and torch.equal(output[~source], x[~source])


def test_a_refusal_counts_at_its_price():
    """A third column, the refusal's, that grows with x: worth half an error to this attacker."""
    w = torch.stack([torch.zeros(9), torch.full((9,), -9.0), torch.ones(9)])
    model = Linear(w, torch.tensor([0.0, 0.0, -5.0]), classes=2)
    x, y = torch.full((3, 9), 0.5), torch.zeros(3, dtype=torch.int64)
    cheap = Negation(of=Refusal(on_attacked=0.5))
    turn, ledger = make(model, x, y, Linf(0.2), cheap, steps=80)
    assert (model.labels(play(turn)) == 2).all()
    assert (ledger.queries == 81).all()  # an error would be better still, so nobody leaves
    turn, ledger = make(model, x, y, Linf(0.2), Negation(of=Refusal(on_attacked=2.0)), steps=80)
    assert (model.labels(play(turn)) == 2).all()
    assert (ledger.queries < 81).all()
    # An error is not settled for where the refusal is worth more.
    turn, _ = make(model, x, 1 - y, Linf(0.2), Negation(of=Refusal(on_attacked=2.0)), steps=80)
    assert (model.labels(play(turn)) == 2).all()


def test_an_answer_that_is_not_there_is_taken_where_it_wins():
    class Broken(Linear):
        def logits(self, x: Tensor) -> Tensor:
            logits = super().logits(x)
            return torch.where((x.flatten(1) != 0.5).any(1)[:, None], float("nan"), logits)

    model = Broken(torch.tensor([[1.0] * 9, [0.0] * 9]), torch.zeros(2))
    x, y = torch.full((2, 9), 0.5), torch.zeros(2, dtype=torch.int64)
    no_prize = Negation(ErrorRate(no_answer=0.0))
    turn, ledger = make(model, x, y, Linf(0.1), no_prize, steps=20)
    assert torch.equal(play(turn), x) and (ledger.queries == 21).all()
    turn, ledger = make(model, x, y, Linf(0.1), steps=20)
    assert model.logits(play(turn)).isnan().all() and (ledger.queries == 2).all()


@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 5, 9), (1, 1, 12)])
@pytest.mark.parametrize("p", [0.8, 0.1, 0.001])
def test_windows_reach_every_pixel_the_last_included(shape, p):
    key, plane = chance.keys(0, 400), torch.zeros(1, *shape)
    draw = chance.uniform(key, (2,))
    pixels, (h, w) = _window(draw, plane, p, least=1)
    inside = torch.zeros(400, shape[1] * shape[2], dtype=torch.int64)
    inside.scatter_add_(1, pixels[:, 0], torch.ones_like(pixels[:, 0]))
    inside = inside.reshape(400, *shape[1:])
    assert (inside.sum(0) > 0).all()
    rows, columns = inside.amax(2).sum(1), inside.amax(1).sum(1)
    assert (rows == h).all() and (columns == w).all() and (inside.sum((1, 2)) == h * w).all()
    assert abs(h * w - p * shape[1] * shape[2]) <= max(h, w)


def test_a_move_is_never_idle():
    """One channel and one column of stripes: half of all draws repeat what is there."""
    given = torch.full((50, 1, 6, 6), 0.5)
    moves, key, at = _Squares(Linf(0.1), given), chance.keys(0, 50), torch.arange(50)
    best = moves.start(at, key)
    for step in range(20):
        x = moves.move(at, best, chance.fold(key, step), 0.02)
        assert (x != best).flatten(1).any(1).all()
        best = x


def test_bumps_are_the_papers():
    """Equation 2 for a 3 x 3 half (n = 1): 1 + 1/4 in the middle, 1/4 around it."""
    pair = _bumps(6, 3)[0]
    half = torch.full((3, 3), 0.25)
    half[1, 1] = 1.25
    expected = torch.cat([half, -half]) / (2 * half.square().sum()).sqrt()
    torch.testing.assert_close(pair, expected)
    torch.testing.assert_close(_bumps(3, 6)[1], expected.T)


def test_a_bump_takes_over_the_length_of_another_window():
    given = torch.full((50, 2, 9, 9), 0.5)
    space, key, at = L2(0.1), chance.keys(0, 50), torch.arange(50)
    moves = _Bumps(space, given)
    best = moves.start(at, key)
    x = moves.move(at, best, key, 9 / 81)
    for step in (best, x):
        torch.testing.assert_close(space.size(given, step), torch.full((50,), 0.1))
    assert (best != given).all()
    emptied = (x == given).all(1).flatten(1).sum(1)
    changed = ((x - best).abs() > 1e-6).any(1).flatten(1).sum(1)  # the rest rounds
    assert (emptied <= 9).all() and (emptied == 9).any() and (emptied > 0).sum() > 40
    assert (changed == emptied + 9).all()


def test_what_the_box_cuts_of_a_displacement_others_make_good():
    """Half of the values cannot fall: without the rest they would leave eps / sqrt(2) of it."""
    given = torch.full((50, 1, 10, 10), 0.5)
    given[..., ::2] = 0.0
    space, key, at = L2(0.1), chance.keys(0, 50), torch.arange(50)
    moves = _Bumps(space, given)
    best = moves.start(at, key)
    for x in (best, moves.move(at, best, key, 0.2)):
        assert space.contains(given, x).all()
        torch.testing.assert_close(space.size(given, x), torch.full((50,), 0.1))


def test_windows_stay_large_in_l2_alone_unless_told_otherwise():
    """With few steps the schedule of 10,000 is at its beginning; scaled, at its end."""
    model = linear((1, 8, 8), seed=7)
    x, y = inputs(model, (1, 8, 8))
    for space, default in ((Linf(0.01), True), (L2(0.01), False), (L1(0.01), True)):
        outputs = {
            rescale: play(scored(Square(60, rescale=rescale), model, x, y, space)[0])
            for rescale in (None, True, False)
        }
        assert torch.equal(outputs[None], outputs[default])
        assert not torch.equal(outputs[None], outputs[not default])


def test_the_l2_search_keeps_its_length():
    model = linear((2, 8, 8), seed=7)
    x, y = inputs(model, (2, 8, 8))
    space = L2(0.5 * float(radius(model, x, 2).min()))
    output = play(make(model, x, y, space, steps=200)[0])
    torch.testing.assert_close(space.size(x, output), torch.full((12,), space.eps))


def test_other_spaces_are_refused():
    turn, _ = make(linear((4,), 0), torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), Linf(0.1))
    square = Square()
    square.check(turn.player)
    square.check(replace(turn.player, actions=L2(1.0)))
    square.check(replace(turn.player, actions=L1(1.0)))
    with pytest.raises(ValueError, match="cannot serve actions=L0; use actions=linf, l2 or l1"):
        square.check(replace(turn.player, actions=L0(1)))


def test_a_bump_in_l1_is_sparse_and_spends_all_of_the_ball():
    given = torch.full((50, 2, 25, 25), 0.5)
    space, key, at = L1(0.8), chance.keys(0, 50), torch.arange(50)
    moves = _Bumps(space, given)
    best = moves.start(at, key)
    x = moves.move(at, best, key, 9 / 625)
    for step in (best, x):
        torch.testing.assert_close(space.size(given, step), torch.full((50,), 0.8))
    # Before the projection the start changes every entry, as in L2.
    assert ((best != given).flatten(1).sum(1) < 2 * 625 / 4).all()
    assert (x != best).flatten(1).any(1).all()


def test_the_l1_search_errs_where_one_entry_can_and_not_beyond_the_ball():
    """One entry decides, and needs 0.1 of the ball; a search over windows needs more to spare."""
    w = torch.zeros(2, 1, 6, 6)
    w[1, 0, 2, 3] = 1.0
    model = Linear(w, torch.tensor([0.6, 0.0]))
    x, y = torch.full((8, 1, 6, 6), 0.5), torch.zeros(8, dtype=torch.int64)
    near, ledger = make(model, x, y, L1(0.4), steps=600)
    assert (model.labels(play(near)) == 1).all() and (ledger.queries < 601).all()
    far, ledger = make(model, x, y, L1(0.099), steps=50)
    assert (model.labels(play(far)) == 0).all() and (ledger.queries == 51).all()


def test_the_l1_batch_size_changes_nothing():
    model = linear((2, 6, 6), seed=5)
    x, y = inputs(model, (2, 6, 6))
    space = L1(float(radius(model, x, float("inf")).median()))
    outputs = [play(make(model, x, y, space, batch_size=b, steps=40)[0]) for b in (1, 5, 64)]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
