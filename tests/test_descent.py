"""The engine of the descents: who walks, who leaves, what is kept."""

from dataclasses import dataclass

import pytest
import torch
from linear import BOX, NO_PRIZE, linear_model, play, points, turn_of
from torch import nn

from arena import Labelled
from arena.actions.lp import L2, Linf
from arena.attacks.apgd import APGD
from arena.attacks.apgd_l1 import APGDL1
from arena.attacks.engines import descent
from arena.attacks.engines.descent import Descent, Search
from arena.attacks.engines.walks import PerWalk, Walks
from arena.attacks.fab import FAB
from arena.attacks.momentum import Momentum
from arena.attacks.pgd import PGD
from arena.classification import decide
from arena.costs import CostMatrix, ErrorRate, Negation, Refusal, Targeted
from arena.learners.networks import MLP


class Steady(nn.Module):
    """A small net whose answer to an input is the same to the bit, whatever stands beside it.

    A matrix product rounds by the number of rows, and a walk may then go another way.
    """

    def __init__(self):
        super().__init__()
        self.inner = MLP((16,)).build((12,), 4, seed=5).requires_grad_(False)

    def forward(self, x):
        _, first, _, last = self.inner
        hidden = ((x[:, None] * first.weight).sum(2) + first.bias).relu()
        return (hidden[:, None] * last.weight).sum(2) + last.bias


NET = Steady()
SPACE = Linf(0.4, BOX)


def four(n=60, seed=1):
    """Points of four classes, most of them as the net has them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 12, generator=generator)
    y = NET(x).argmax(1)
    y[::7] = (y[::7] + 1) % 4
    return Labelled(x, y, 4, BOX)


DESCENTS = [
    PGD(8, 0.3, restarts=5),
    Momentum(8, 0.3, restarts=2, random_start=True),
    Momentum(8, 0.3, random_start=True, nesterov=True),
    APGD(12, restarts=2),
    APGD(12, objective="dlr", targets=3, restarts=2),
    FAB(8, targets=3, restarts=2),
]


@pytest.mark.parametrize("closing", [True, False])
@pytest.mark.parametrize("strategy", DESCENTS, ids=lambda s: type(s).__name__)
def test_nothing_depends_on_how_many_walk_together(strategy, closing):
    data = four(30)
    whole, books = play(strategy, SPACE, NET, data, closing=closing)
    for rows, n in ((13, 30), (1, 10)):
        moved, ledger = play(strategy, SPACE, NET, data[:n], closing=closing, rows=rows)
        assert torch.equal(moved, whole[:n])
        assert torch.equal(ledger.queries, books.queries[:n])


@pytest.mark.parametrize("strategy", DESCENTS, ids=lambda s: type(s).__name__)
def test_part_of_a_turn_is_played_as_in_the_whole(strategy):
    data, rows = four(), torch.tensor([41, 3, 4, 30])
    whole, books = play(strategy, SPACE, NET, data)
    turn, ledger = turn_of(strategy, SPACE, NET, data)
    assert torch.equal(strategy.respond(turn.on(rows)), whole[rows])
    assert torch.equal(ledger.queries[rows], books.queries[rows])
    others = torch.ones(len(data), dtype=torch.bool).index_fill(0, rows, False)
    assert not ledger.queries[others].any()


def test_parts_of_parts_name_the_same_examples():
    turn, _ = turn_of(PGD(), SPACE, NET, four())
    part = turn.on(torch.tensor([9, 8, 7, 6])).on(torch.tensor([3, 1]))
    assert torch.equal(part.keys, turn.keys[[6, 8]])
    part.keep(torch.tensor([1]), part.data.x[1:])
    ((rows, x),) = turn.kept
    assert rows.tolist() == [8] and torch.equal(x, turn.data.x[8:9])


@pytest.mark.parametrize("strategy", DESCENTS, ids=lambda s: type(s).__name__)
def test_an_example_leaves_at_its_first_mistake_if_that_is_the_end(strategy):
    data = four()
    moved, ledger = play(strategy, SPACE, NET, data, closing=True)
    stayed, books = play(strategy, SPACE, NET, data, closing=False)
    broken = NET(moved).argmax(1) != data.y
    assert 0 < broken.float().mean() < 1
    assert torch.equal(broken, NET(stayed).argmax(1) != data.y), "leaving costs no success"
    if not isinstance(strategy, FAB):  # for which a mistake in the ball is the end in any case
        assert (ledger.queries[broken] <= books.queries[broken]).all()
        assert ledger.queries[broken].sum() < books.queries[broken].sum() / 2
    assert torch.equal(ledger.queries[~broken], books.queries[~broken])


def test_restarts_run_in_waves_of_one_two_four():
    """A walk that never succeeds shows which walks are side by side."""
    sizes = []

    @dataclass(frozen=True)
    class Watching(PGD):
        def begin(self, search: Search, walks: Walks):
            if (now := sorted(set(walks.variant.tolist()))) not in sizes:
                sizes.append(now)
            return super().begin(search, walks)

    play(Watching(2, 0.3, restarts=6), Linf(1e-6, BOX), NET, four(), closing=True)
    assert sizes == [[0], [1, 2], [3, 4, 5]]


def test_of_walks_side_by_side_the_better_counts():
    """Walks 1 and 2 run together; what is kept is the best of all three by cost, then loss."""

    @dataclass(frozen=True)
    class Placed(Descent):
        steps: int = 1

        def variants(self, search: Search) -> int:
            return 3

        def begin(self, search: Search, walks: Walks):
            walks.x = walks.given + torch.tensor([0.1, 0.3, 0.2])[walks.variant][:, None]

        def advance(self, search, walks, loss, gradient):
            return walks.x

    def rising(x):
        return torch.stack([torch.zeros(len(x)), x.sum(1)], 1)

    class Rising(nn.Module):
        def forward(self, x):
            return rising(x)

    data = Labelled(torch.full((2, 3), -9.0), torch.zeros(2, dtype=torch.int64), 2, BOX)
    moved, _ = play(Placed(), Linf(0.4, BOX), Rising(), data)
    torch.testing.assert_close(moved, data.x + 0.3)  # nearest to a mistake: the lowest loss


@pytest.mark.parametrize("strategy", [PGD(8, 0.3), APGD(12, objective="dlr", targets=3), FAB(8)])
def test_rounding_errors_are_no_mistakes(strategy):
    data = four()
    rounded = type(strategy)(**{**vars(strategy), "precision": "bfloat16"})
    moved, ledger = play(rounded, SPACE, NET, data, closing=True)
    exact, books = play(strategy, SPACE, NET, data, closing=True)
    assert SPACE.contains(data.x, moved).all()
    # Who left early was confirmed by the model itself; who did not walked to the end.
    early = ledger.gradients < books.gradients.max()
    assert (NET(moved).argmax(1) != data.y)[early].all()
    wrong, right = (NET(x).argmax(1) != data.y for x in (moved, exact))
    assert (wrong == right).float().mean() > 0.9


COSTS = [
    Negation(ErrorRate()),
    Targeted(2),
    Negation(CostMatrix(((0, 1, 2, 3), (1, 0, 1, 2), (3, 1, 0, 1), (1, 1, 1, 0)))),
    Negation(Refusal()),
]


@pytest.mark.parametrize("cost", COSTS, ids=lambda c: type(getattr(c, "of", c)).__name__)
@pytest.mark.parametrize("strategy", DESCENTS, ids=lambda s: type(s).__name__)
def test_any_cost_is_never_worse_than_at_the_input(strategy, cost):
    data = four()
    moved, _ = play(strategy, SPACE, NET, data, cost, closing=True)
    assert SPACE.contains(data.x, moved).all()
    before, after = (cost.answered(decide(NET(x), 4), data.y) for x in (data.x, moved))
    assert after.mean() < before.mean()


@pytest.mark.parametrize("strategy", [*DESCENTS, APGDL1(12)], ids=lambda s: type(s).__name__)
def test_eps_zero_leaves_the_inputs(strategy):
    data = four()
    space = Linf(0.0, BOX)
    if isinstance(strategy, APGDL1):
        from arena.actions.lp import L1

        space = L1(0.0, BOX)
    moved, _ = play(strategy, space, NET, data)
    assert torch.equal(moved, data.x)


@pytest.mark.parametrize("strategy", DESCENTS, ids=lambda s: type(s).__name__)
def test_examples_without_finite_answers_leave_the_others_alone(strategy):
    class Cracked(nn.Module):
        def forward(self, x):
            return NET(x) + torch.where(x[:, :1] > 0.8, torch.nan, 0.0)

    data = four()
    cracked = data.x[:, 0] > 0.8 + SPACE.eps
    sound = data.x[:, 0] < 0.8 - SPACE.eps
    moved, _ = play(strategy, SPACE, Cracked(), data, NO_PRIZE)
    whole, _ = play(strategy, SPACE, NET, data)
    assert moved.isfinite().all() and SPACE.contains(data.x, moved).all()
    assert cracked.any() and torch.equal(moved[cracked], data.x[cracked])
    assert torch.equal(moved[sound], whole[sound])


def test_two_classes_have_every_objective():
    module, data = linear_model(), points()
    found = []
    for objective in ("surrogate", "dlr", "margin"):
        for targets in (0, 9) if objective != "surrogate" else (0,):
            attack = APGD(20, objective=objective, targets=targets)
            moved, _ = play(attack, L2(0.3, BOX), module, data)
            found.append((module(moved).argmax(1) != data.y).float().mean())
    assert len({float(error) for error in found}) == 1, "a linear model has one optimum"


@pytest.mark.parametrize("strategy", DESCENTS, ids=lambda s: type(s).__name__)
def test_looking_less_often_at_who_is_done_changes_no_result(strategy, monkeypatch):
    """As on an accelerator, where each look waits for the device."""
    data = four(30)
    found = [play(strategy, SPACE, NET, data, closing=True, rows=n)[0] for n in (64, 7)]
    monkeypatch.setattr(descent, "_CPU_SYNC", 8)
    found += [play(strategy, SPACE, NET, data, closing=True, rows=n)[0] for n in (64, 7)]
    for moved in found[1:]:
        assert torch.equal(moved, found[0])


def test_what_a_method_carries_stays_with_its_walks():
    """Fields that are states themselves, or None, are cut and put together as tensors are."""

    @dataclass
    class Inner(PerWalk):
        square: torch.Tensor

    @dataclass
    class Outer(PerWalk):
        number: torch.Tensor
        inner: Inner
        target: torch.Tensor | None = None

    def numbered(*numbers):
        number = torch.tensor(numbers)
        return Outer(number, Inner(number**2), number + 1 if numbers[0] < 9 else None)

    some = numbered(1, 2, 3)[torch.tensor([True, False, True])].joined(numbered(4, 5))
    assert some.number.tolist() == [1, 3, 4, 5]
    assert some.inner.square.tolist() == [1, 9, 16, 25]
    assert some.target.tolist() == [2, 4, 5, 6]
    assert some[torch.tensor([2, 0])].inner.square.tolist() == [16, 1]
    none = numbered(9, 10)[torch.tensor([1])]
    assert none.target is None and none.joined(none).target is None


def test_no_pass_is_wider_than_the_batch_size():
    widest = []

    class Watched(nn.Module):
        def forward(self, x):
            widest.append(len(x))
            return NET(x)

    play(APGD(4, restarts=8), Linf(1e-6, BOX), Watched(), four(5), rows=2)
    assert max(widest) == 2


def test_each_example_aims_at_its_own_winning_answers():
    """Whoever has fewer than others begins again, and never aims at what loses."""
    cost = Negation(CostMatrix(((0, 1, 0, 0), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0))))
    aims = []

    @dataclass(frozen=True)
    class Watching(APGD):
        def begin(self, search: Search, walks: Walks):
            own = super().begin(search, walks)
            aims.extend(zip(walks.y.tolist(), walks.target.tolist(), strict=True))
            return own

    play(Watching(2, objective="margin", targets=3), Linf(1e-6, BOX), NET, four(), cost)
    assert {target for y, target in aims if y == 0} == {1}
    assert {target for y, target in aims if y == 1} == {0, 2, 3}


def test_one_answer_that_is_no_number_does_not_end_a_walk():
    passes = []

    class Flickers(nn.Module):
        def forward(self, x):
            passes.append(bool(x.isfinite().all()))
            return NET(x) + (torch.nan if len(passes) == 4 else 0.0)

    play(FAB(10, targets=1), Linf(0.01, BOX), Flickers(), four(20))
    assert len(passes) == 12 and all(passes)


def test_whom_no_answer_serves_asks_once():
    _, ledger = play(FAB(10), L2(0.0, BOX), NET, four(), Targeted(2), closing=True)
    already = four().y == 2
    assert (ledger.queries[already] <= 2).all() and (ledger.queries[~already] > 2).any()
