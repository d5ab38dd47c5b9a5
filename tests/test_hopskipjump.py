"""HopSkipJump against the distance to a hyperplane, its budget and its randomness."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from arena.actions.lp import L1, L2, Linf, Lp
from arena.attacks.hopskipjump import HopSkipJump, _Walk
from arena.core import Cost, Labelled, Outcome, Player, Task, Turn
from arena.costs import ErrorRate, Negation, Targeted
from arena.knowledge import INVALID, Knowledge, LabelView, Ledger

ERROR = Negation(of=ErrorRate())
BOX = (-3.0, 5.0)


class Linear:
    """Labels of w x + b, added up in one order whatever the batch; notes what it was asked."""

    def __init__(self, w: Tensor, b: Tensor) -> None:
        self.w, self.b, self.classes = w, b, len(w)
        self.asked: list[Tensor] = []

    def logits(self, x: Tensor) -> Tensor:
        raise AssertionError("HopSkipJump may see labels only")

    def labels(self, x: Tensor) -> Tensor:
        assert ((x >= BOX[0]) & (x <= BOX[1])).all()
        self.asked.append(x)
        return self.scores(x).argmax(1)

    def scores(self, x: Tensor) -> Tensor:
        return (x.flatten(1)[:, None].double() * self.w).sum(2) + self.b

    @property
    def module(self) -> torch.nn.Module:
        raise PermissionError


def make(
    model: Linear,
    x: Tensor,
    y: Tensor,
    space: Lp,
    cost: Cost = ERROR,
    *,
    budget: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **fields: int,
) -> tuple[Turn, Ledger]:
    knowledge = Knowledge.black_box("labels", budget)
    player = Player(space, cost, knowledge, HopSkipJump(**fields))
    player.strategy.check(player)
    data = Labelled(x, y, model.classes, space.box)
    task = Task(data.shape, model.classes, space.box, space, cost)
    ledger = Ledger(len(x), budget)
    view = LabelView("defender", knowledge, {"task": task}, model, ledger)
    turn = Turn(
        player=player,
        round=0,
        data=data,
        aside=None,
        last=None,
        seed=seed,
        batch_size=batch_size,
        look=lambda *_: view,
    )
    return turn, ledger


def play(turn: Turn) -> Tensor:
    output = turn.player.strategy.respond(turn)
    assert turn.player.actions.contains(turn.data.x, output).all()
    return output


def nearest(turn: Turn) -> Tensor:
    """The distances [B] at which the search ends, before anything is projected."""
    view = turn.see("defender", LabelView)
    found = turn.each_batch(lambda rows: turn.player.strategy._nearest(turn, view, rows))
    return turn.player.actions.size(turn.data.x, found)


def problem(
    d: int = 25, n: int = 6, classes: int = 2, seed: int = 0
) -> tuple[Linear, Tensor, Tensor]:
    """A linear model that halves the box, inputs around its middle, and what it answers."""
    g = torch.Generator().manual_seed(seed)
    model = Linear(torch.randn(classes, d, generator=g), torch.zeros(classes))
    model.b = -model.scores(torch.ones(1, d))[0]
    x = 1 + torch.rand(n, d, generator=g) - 0.5
    return model, x, model.labels(x)


def radius(model: Linear, x: Tensor, dual: float) -> Tensor:
    """The distance of each input to the decision boundary of two classes."""
    scores = model.scores(x)
    return ((scores[:, 1] - scores[:, 0]).abs() / (model.w[1] - model.w[0]).norm(dual)).float()


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


@pytest.mark.parametrize(("ball", "dual"), [(L2, 2), (Linf, 1)])
def test_it_errs_where_the_ball_holds_an_error_and_stops_there(ball, dual):
    model, x, y = problem(n=12)
    r = radius(model, x, dual)
    eps = 1.2 * float(r.median())
    turn, ledger = make(model, x, y, ball(eps, BOX), budget=3000)
    output = play(turn)
    lost = model.labels(output) != y
    assert lost[r < eps / 1.15].all() and not lost[r > eps].any()
    assert lost.any() and not lost.all()
    assert (ledger.queries[lost] < 3000).all() and (ledger.queries[~lost] == 3000).all()
    # Who found no error in the ball plays the way to the nearest one, as far as the ball goes.
    size = turn.player.actions.size(x, output)
    torch.testing.assert_close(size[~lost], torch.full_like(size[~lost], eps))


@pytest.mark.parametrize("ball", [L2, Linf])
@pytest.mark.parametrize("budget", [0, 1, 2, 7, 50, 333])
def test_spends_the_budget_and_no_more(ball, budget):
    model, x, y = problem()
    turn, ledger = make(model, x, y, ball(1e-3, BOX), budget=budget)
    output = play(turn)
    assert (ledger.queries == budget).all()
    if budget < 2:
        assert torch.equal(output, x)


def test_an_example_with_less_left_ends_alone_and_changes_nothing_for_the_others():
    model, x, y = problem(n=3)
    space = L2(1e-3, BOX)
    short = nearest(make(model, x, y, space, budget=60)[0])
    long = nearest(make(model, x, y, space, budget=1500)[0])
    turn, ledger = make(model, x, y, space, budget=1500)
    ledger.queries[1] = 1440
    mixed = nearest(turn)
    assert (ledger.queries == 1500).all() and short[1] > long[1]
    assert torch.equal(mixed, torch.stack([long[0], short[1], long[2]]))


def walking(space: Lp, n: int, budget: int | None = None) -> tuple[Linear, Ledger, _Walk, Tensor]:
    """Walks that have bisected once."""
    model, x, y = problem(n=n)
    turn, ledger = make(model, x, y, space, budget=budget)
    walk = _Walk(turn, turn.see("defender", LabelView), torch.arange(n))
    on = walk.bisect(walk.start(10))
    assert len(on) == n
    model.asked.clear()
    return model, ledger, walk, on


def place(model: Linear, walk: _Walk, deep: float) -> Tensor:
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
    assert len(probes) == 90
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


@pytest.mark.parametrize("ball", [L2, Linf])
def test_the_batch_size_changes_nothing_and_the_seed_does(ball):
    model, x, y = problem(n=7)
    r = radius(model, x, 2 if ball is L2 else 1)
    space = ball(float(r.median()), BOX)
    outputs = []
    for size in (1, 3, 64):
        turn, _ = make(model, x, y, space, budget=250, batch_size=size)
        model.asked.clear()
        outputs.append(play(turn))
        assert size // 2 < max(map(len, model.asked)) <= size
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    other = play(make(model, x, y, space, budget=250, seed=1)[0])
    assert not torch.equal(outputs[0], other)


def test_inputs_that_are_mistakes_or_hopeless_are_left_alone():
    model, x, y = problem()
    turn, ledger = make(model, x, 1 - y, L2(1.0, BOX))
    assert torch.equal(play(turn), x) and (ledger.queries == 1).all()
    turn, ledger = make(model, x, torch.ones_like(y), L2(1.0, BOX), Targeted(target=1))
    assert torch.equal(play(turn), x) and (ledger.queries == 0).all()


def test_a_start_that_is_never_found_leaves_the_input():
    model, x, y = problem()
    constant = Linear(0 * model.w, torch.tensor([1.0, 0.0]))
    turn, ledger = make(constant, x, 0 * y, L2(1.0, BOX), init_trials=9)
    assert torch.equal(play(turn), x) and (ledger.queries == 10).all()


def test_a_target_is_reached_and_others_are_not_settled_for():
    model, x, y = problem(n=30, classes=3)
    source = y != 2
    assert len(y.unique()) == 3
    turn, ledger = make(model, x, y, L2(1.5, BOX), Targeted(target=2), budget=2000)
    output = play(turn)
    assert (model.labels(output)[source] == 2).all()
    assert (ledger.queries[~source] == 0).all() and torch.equal(output[~source], x[~source])


def test_an_answer_that_is_none_is_no_mistake():
    class Broken(Linear):
        def labels(self, x: Tensor) -> Tensor:
            return torch.where(super().labels(x) == 1, INVALID, 0)

    model, x, y = problem()
    turn, ledger = make(Broken(model.w, model.b), x, 0 * y, L2(1.0, BOX), init_trials=20)
    assert torch.equal(play(turn), x) and (ledger.queries == 21).all()


def test_other_spaces_and_costs_are_refused():
    @dataclass(frozen=True)
    class Opaque(Cost):
        def __call__(self, outcome: Outcome) -> Tensor:
            return outcome.y.float()

    model, x, y = problem()
    player = make(model, x, y, Linf(1.0, BOX))[0].player
    with pytest.raises(ValueError, match=r"not in L1.*actions=linf or l2"):
        player.strategy.check(replace(player, actions=L1(1.0, BOX)))
    with pytest.raises(ValueError, match=r"cost=Opaque does not follow"):
        player.strategy.check(replace(player, cost=Opaque()))
