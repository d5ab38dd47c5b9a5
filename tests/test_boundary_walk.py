"""The laws of every boundary walk: what is legal, what is paid, what leaves, what is refused."""

from dataclasses import dataclass, replace

import pytest
import torch
from hyperplane import BOX, Linear, make, nearest, play, problem, radius
from torch import Tensor

from arena.actions.lp import L1, L2, Linf
from arena.attacks.boundary import Boundary
from arena.attacks.hopskipjump import HopSkipJump
from arena.attacks.sign_opt import SignOPT
from arena.classification import Outcome
from arena.core import Cost
from arena.costs import Negation, Refusal, Targeted
from arena.knowledge import INVALID, REFUSED

WALKS = {
    "hopskipjump-l2": (HopSkipJump(initial_evals=100), L2),
    "hopskipjump-linf": (HopSkipJump(initial_evals=100), Linf),
    "sign_opt-l2": (SignOPT(), L2),
    "sign_opt-linf": (SignOPT(), Linf),
    "boundary-l2": (Boundary(), L2),
}
walks = pytest.mark.parametrize(("walk", "ball"), WALKS.values(), ids=WALKS.keys())


def dual(ball):
    return 2 if ball is L2 else 1


@walks
def test_it_errs_where_the_ball_holds_an_error_and_stops_there(walk, ball):
    model, x, y = problem(n=12)
    r = radius(model, x, dual(ball))
    eps = 1.2 * float(r.median())
    turn, ledger = make(walk, model, x, y, ball(eps, BOX), budget=3000)
    output = play(turn)
    lost = model.labels(output) != y
    assert lost[r < eps / 1.15].all() and not lost[r > eps].any()
    assert lost.any() and not lost.all()
    assert ledger.queries[lost].max() < ledger.queries[~lost].min()
    # Who found no error in the ball plays the way to the nearest one, as far as the ball goes.
    size = turn.player.actions.size(x, output)
    torch.testing.assert_close(size[~lost], torch.full_like(size[~lost], eps))


@walks
def test_a_radius_of_zero_is_the_clean_error(walk, ball):
    model, x, y = problem(n=12)
    y[:5] = 1 - y[:5]
    turn, ledger = make(walk, model, x, y, ball(0.0, BOX), budget=100)
    assert torch.equal(play(turn), x)
    assert ledger.queries.tolist() == [1] * 5 + [100] * 7


@walks
def test_more_queries_come_nearer(walk, ball):
    model, x, y = problem(n=5)
    r = radius(model, x, dual(ball))
    medians = [
        float((nearest(make(walk, model, x, y, ball(1e-3, BOX), budget=b)[0]) / r).median())
        for b in (20, 120, 800)
    ]
    assert medians[0] > 1.1 * medians[1] > 1.1**2 * medians[2] >= 1


@walks
@pytest.mark.parametrize("budget", [0, 1, 2, 7, 50, 333])
def test_spends_the_budget_and_no_more(walk, ball, budget):
    model, x, y = problem()
    turn, ledger = make(walk, model, x, y, ball(1e-3, BOX), budget=budget)
    output = play(turn)
    assert (ledger.queries == budget).all()
    if budget < 2:
        assert torch.equal(output, x)


@walks
def test_an_example_with_less_left_ends_alone_and_changes_nothing_for_the_others(walk, ball):
    model, x, y = problem(n=3)
    space = ball(1e-3, BOX)
    short = nearest(make(walk, model, x, y, space, budget=60)[0])
    long = nearest(make(walk, model, x, y, space, budget=500)[0])
    turn, ledger = make(walk, model, x, y, space, budget=500)
    ledger.queries[1] = 440
    mixed = nearest(turn)
    assert (ledger.queries == 500).all() and short[1] > long[1]
    assert torch.equal(mixed, torch.stack([long[0], short[1], long[2]]))


@walks
@pytest.mark.parametrize("shape", [(25,), (1, 4, 7)])
def test_the_batch_size_changes_nothing_and_the_seed_does(walk, ball, shape):
    model, x, y = problem(d=torch.Size(shape).numel(), n=5)
    space = ball(float(radius(model, x, dual(ball)).median()), BOX)
    x = x.reshape(-1, *shape)
    outputs = []
    for size in (1, 3, 64):
        turn, _ = make(walk, model, x, y, space, budget=120, batch_size=size)
        model.asked.clear()
        outputs.append(play(turn))
        assert min(size, len(x)) <= max(map(len, model.asked)) <= size
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    other = play(make(walk, model, x, y, space, budget=120, seed=1)[0])
    assert not torch.equal(outputs[0], other)


@walks
def test_inputs_that_are_mistakes_or_hopeless_are_left_alone(walk, ball):
    model, x, y = problem()
    turn, ledger = make(walk, model, x, 1 - y, ball(1.0, BOX))
    assert torch.equal(play(turn), x) and (ledger.queries == 1).all()
    turn, ledger = make(walk, model, x, torch.ones_like(y), ball(1.0, BOX), Targeted(target=1))
    assert torch.equal(play(turn), x) and (ledger.queries == 0).all()


@walks
def test_a_start_that_is_never_found_leaves_the_input(walk, ball):
    model, x, y = problem()
    constant = Linear(0 * model.w, torch.tensor([1.0, 0.0]))
    turn, ledger = make(replace(walk, init_trials=9), constant, x, 0 * y, ball(1.0, BOX))
    assert torch.equal(play(turn), x) and (ledger.queries == 10).all()


@walks
def test_a_target_is_reached_and_others_are_not_settled_for(walk, ball):
    model, x, y = problem(n=30, classes=3)
    source = y != 2
    assert len(y.unique()) == 3
    eps = 1.5 if ball is L2 else 0.5
    turn, ledger = make(walk, model, x, y, ball(eps, BOX), Targeted(target=2), budget=2000)
    output = play(turn)
    assert (model.labels(output)[source] == 2).all()
    assert (ledger.queries[~source] == 0).all() and torch.equal(output[~source], x[~source])


class Partly(Linear):
    """Answers `instead` of its last class where the first input value is above 1."""

    instead = INVALID

    def labels(self, x: Tensor) -> Tensor:
        label = super().labels(x)
        return torch.where((label == 1) & (x.flatten(1)[:, 0] > 1), self.instead, label)


@walks
def test_an_answer_that_is_none_is_no_mistake_and_spoils_nothing(walk, ball):
    model, x, _ = problem(n=10)
    model = Partly(model.w, model.b)
    x[:, 0], y = BOX[0], torch.zeros(10, dtype=torch.int64)
    turn, ledger = make(walk, model, x, y, ball(4.0, BOX), budget=1500)
    assert (model.labels(play(turn)) == 1).all() and (ledger.queries < 1500).all()
    invalid = torch.cat([model.labels(x) for x in list(model.asked)]) == INVALID
    assert invalid.any() and not invalid.all()


@walks
def test_a_refusal_is_a_mistake_where_it_pays(walk, ball):
    class Refusing(Partly):
        instead = REFUSED

    model, x, _ = problem(n=10)
    model = Refusing(model.w, model.b + torch.tensor([0.0, 1000.0]))
    x[:, 0], y = 0.5, torch.ones(10, dtype=torch.int64)
    for price, expected in ((0.5, REFUSED), (0.0, 1)):
        cost = Negation(of=Refusal(on_attacked=price))
        turn, _ = make(replace(walk, init_trials=20), model, x, y, ball(1.5, BOX), cost, budget=300)
        assert (model.labels(play(turn)) == expected).all()


@dataclass(frozen=True)
class Opaque(Cost):
    """A cost that answers do not tell."""

    def __call__(self, outcome: Outcome) -> Tensor:
        return outcome.y.float()


@walks
def test_other_spaces_and_costs_are_refused(walk, ball):
    model, x, y = problem()
    player = make(walk, model, x, y, ball(1.0, BOX))[0].player
    name = type(walk).__name__
    with pytest.raises(ValueError, match=rf"{name} cannot serve actions=L1; use actions=.*l2"):
        walk.check(replace(player, actions=L1(1.0, BOX)))
    with pytest.raises(ValueError, match=rf"{name} .*cost=Opaque does not follow"):
        walk.check(replace(player, cost=Opaque()))


def test_boundary_has_no_step_sideways_in_linf():
    model, x, y = problem()
    with pytest.raises(ValueError, match="Boundary cannot serve actions=Linf; use actions=l2"):
        make(Boundary(), model, x, y, Linf(1.0, BOX))
