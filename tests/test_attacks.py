"""Gradient attacks against the closed form, and transfer by what is granted."""

import pytest
import torch
from linear import BOX, NO_PRIZE, dual, linear_model, margins, play, points
from small import LINEAR, attacker, defender, evasion, last
from torch import nn

from arena import Knowledge, Labelled, Learner
from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.apgd import APGD
from arena.attacks.apgd_l1 import APGDL1
from arena.attacks.fgsm import FGSM
from arena.attacks.momentum import Momentum
from arena.attacks.pgd import PGD
from arena.attacks.transfer import Transfer
from arena.costs import Targeted
from arena.defenses.erm import ERM
from arena.learners.networks import MLP


@pytest.mark.parametrize(
    ("strategy", "space"),
    [
        (FGSM(), Linf(0.3, BOX)),
        (FGSM(), L2(0.3, BOX)),
        (FGSM(), L1(0.3, BOX)),
        (FGSM(2.0, random_start=True), Linf(0.3, BOX)),
        (PGD(40, 0.1), Linf(0.3, BOX)),
        (PGD(40, 0.1, returns="last"), Linf(0.3, BOX)),
        (PGD(40, 0.2), L2(0.3, BOX)),
        (PGD(40, 0.2, random_start=False), L1(0.3, BOX)),
        (Momentum(40, 0.1, random_start=True), Linf(0.3, BOX)),
        (Momentum(40, 0.1, random_start=True, nesterov=True), Linf(0.3, BOX)),
        (Momentum(40, 0.2, random_start=True, decay=0.5), L2(0.3, BOX)),
        (APGD(50), Linf(0.3, BOX)),
        (APGD(50), L2(0.3, BOX)),
        (APGD(50, objective="margin"), Linf(0.3, BOX)),
        (APGD(50, objective="dlr", targets=9), L2(0.3, BOX)),
        (APGDL1(100), L1(0.3, BOX)),
    ],
    ids=str,
)
def test_on_a_linear_model_the_optimum_is_found(strategy, space):
    module, data = linear_model(), points()
    moved, _ = play(strategy, space, module, data)
    assert space.contains(data.x, moved).all()
    w = module.weight[0] - module.weight[1]
    expected = margins(module, data.x, data.y) - dual(w, space)
    torch.testing.assert_close(margins(module, moved, data.y), expected, atol=2e-3, rtol=0)


def test_l0_moves_no_more_values_than_allowed_and_the_best_ones():
    module, data, space = linear_model(), points(), L0(2, (-3.0, 3.0))
    data = Labelled(data.x.clamp(-3, 3), data.y, 2, space.box)
    moved, _ = play(PGD(60, 0.5, random_start=False), space, module, data)
    assert ((moved != data.x).sum(1) <= 2).all()
    gained = margins(module, data.x, data.y) - margins(module, moved, data.y)
    # The best two values, each moved to the side of the box that hurts.
    w = module.weight[0] - module.weight[1]
    w = torch.where(data.y[:, None] == 0, w, -w)
    room = torch.maximum(w * (data.x + 3.0), w * (data.x - 3.0))
    # A walk by the largest gradients does not look at the room left: the two largest weights.
    chosen = w[0].abs().topk(2).indices
    torch.testing.assert_close(gained, room[:, chosen].sum(1), atol=1e-3, rtol=0)


def test_the_last_iterate_is_where_the_walk_ends_and_nobody_looks_at_it():
    module, data, space = linear_model(), points(), Linf(0.3, BOX)
    walk = PGD(1, 2.0, random_start=False, returns="last")
    moved, ledger = play(walk, space, module, data)
    assert ledger.queries.tolist() == ledger.gradients.tolist() == [1] * len(data)
    assert torch.equal(moved, play(FGSM(2.0), space, module, data)[0])
    round_ball = L2(0.3, BOX)
    moved, _ = play(walk, round_ball, module, data)
    assert torch.equal(moved, play(FGSM(2.0), round_ball, module, data)[0])
    # From the same random place, and in whatever batches.
    one, _ = play(PGD(3, 0.1, returns="last"), space, module, data, rows=7)
    best, _ = play(PGD(3, 0.1), space, module, data)
    assert torch.equal(one, best), "on a linear model every step is an improvement"
    rough, ledger = play(PGD(3, 0.1, returns="last", precision="bfloat16"), space, module, data)
    assert space.contains(data.x, rough).all() and ledger.gradients.tolist() == [3] * len(data)


def test_the_last_iterate_of_several_walks_is_refused():
    with pytest.raises(ValueError, match=r"returns = 'last', of 2 restarts.*or one restart"):
        PGD(restarts=2, returns="last")


def test_a_step_from_the_answer_does_not_know_the_truth():
    """What is answered right moves as ever, and what is answered wrong away from that mistake."""
    module, data, space = linear_model(), points(), Linf(0.3, BOX)
    moved, _ = play(FGSM(labels="answer"), space, module, data)
    answered = Labelled(data.x, module(data.x).argmax(1), 2, BOX)
    assert 0 < (answered.y == data.y).sum() < len(data)
    assert torch.equal(moved, play(FGSM(), space, module, answered)[0])
    flipped, _ = play(FGSM(labels="answer"), space, module, Labelled(data.x, 1 - data.y, 2, BOX))
    assert torch.equal(moved, flipped)


def test_the_targeted_goal_is_the_costs_not_the_attacks():
    module = linear_model(classes=5)
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(60, 12, generator=generator), torch.arange(60) % 5
    data = Labelled(x, y, 5, BOX)
    moved, _ = play(PGD(40, 0.1), Linf(1.0, BOX), module, data, Targeted(2))
    answers = module(moved).argmax(1)
    assert ((answers == 2) | (y == 2)).float().mean() > 0.9
    assert torch.equal(moved[y == 2], moved[y == 2].clone())
    untargeted, _ = play(PGD(40, 0.1), Linf(1.0, BOX), module, data)
    assert (module(untargeted).argmax(1) != y).float().mean() > 0.9
    assert (module(untargeted).argmax(1) == 2).float().mean() < 0.9


def test_the_best_iterate_is_returned_not_the_last():
    """A step far too long overshoots; what is returned is no worse than the start."""
    module, data = linear_model(), points()
    space = Linf(0.3, BOX)
    best, _ = play(PGD(steps=3, step=0.1, random_start=False), space, module, data)
    assert (margins(module, best, data.y) <= margins(module, data.x, data.y) + 1e-6).all()


def test_more_restarts_never_hurt():
    torch_free = MLP((16,)).build((12,), 2, seed=5)
    data = points()
    costs = []
    for restarts in (1, 3):
        moved, _ = play(PGD(5, 0.3, restarts), Linf(0.2, BOX), torch_free, data)
        costs.append(nn.functional.cross_entropy(torch_free(moved), data.y, reduction="none"))
    wrong = [cost > 0.6931472 for cost in costs]  # log 2: two classes, the right one loses
    assert (wrong[1] >= wrong[0]).all()


def test_nan_gradients_on_some_examples_leave_the_others_alone():
    class Cracked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear_model()

        def forward(self, x):
            logits = self.inner(x)
            bad = torch.arange(len(x))[:, None] % 2 == 0
            return logits + torch.where(bad, torch.nan, 0.0)

    data, space = points(), Linf(0.3, BOX)
    moved, _ = play(PGD(10, 0.2), space, Cracked(), data, NO_PRIZE)
    clean, _ = play(PGD(10, 0.2), space, linear_model(), data)
    assert moved.isfinite().all() and space.contains(data.x, moved).all()
    assert torch.equal(moved[1::2], clean[1::2])
    assert torch.equal(moved[::2], data.x[::2]), "nothing was found, so nothing is played"


def test_passes_are_what_the_docstrings_promise():
    module, data = linear_model(), points()
    _, ledger = play(PGD(steps=6, step=0.1, restarts=3), Linf(0.3, BOX), module, data)
    assert (ledger.queries == 21).all() and (ledger.gradients == 18).all()
    _, ledger = play(FGSM(), Linf(0.3, BOX), module, data)
    assert (ledger.queries == 1).all() and (ledger.gradients == 1).all()


# Transfer --------------------------------------------------------------------------------------


class Watched(ERM):
    """Records what it is asked to train."""

    log: list

    def train(self, data, seed, task=None, learner=None, store=None):
        Watched.log.append((type(self).__name__, self.epochs, data, learner or self.learner))
        return super().train(data, seed, task, learner, store)


@pytest.mark.parametrize("algorithm", [False, True])
@pytest.mark.parametrize("architecture", [False, True])
@pytest.mark.parametrize("training_data", [False, True])
def test_a_surrogate_is_trained_by_what_is_granted_and_guessed_elsewhere(
    algorithm, architecture, training_data
):
    Watched.log = []
    knowledge = Knowledge(
        algorithm=algorithm, architecture=architecture, training_data=training_data
    )
    guess = Transfer(Watched(MLP((8,)), epochs=2), PGD(3, 0.4))
    arena = evasion(attacker(guess, knowledge), defender(Watched(LINEAR, epochs=1)))
    last(arena)
    (_, own, _, _), (_, epochs, data, learner) = Watched.log
    assert own == 1, "the defender moved first"
    assert epochs == (1 if algorithm else 2)
    assert learner == (LINEAR if architecture else MLP((8,)))
    board = arena.board
    assert data is (board.training if training_data else board.own)
    assert isinstance(learner, Learner)


def test_a_transfer_attacker_without_data_says_so():
    players = attacker(Transfer(ERM(LINEAR, epochs=1)), Knowledge.no_box())
    with pytest.raises(ValueError, match="no data to train a surrogate on"):
        last(evasion(players, attacker_share=0.0))


@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_a_model_that_is_only_surer_is_no_harder_to_attack(scale):
    """Masking by confidence [F17]: the same decision boundary, logits times a constant."""

    class Surer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = MLP((16,)).build((12,), 2, seed=5)

        def forward(self, x):
            return scale * self.inner(x)

    data, space = points(), Linf(0.2, BOX)
    errors = []
    for module in (Surer().inner, Surer()):
        moved, _ = play(PGD(20, 0.2), space, module, data)
        errors.append((module(moved).argmax(1) != data.y).float().mean().item())
    assert errors[1] == pytest.approx(errors[0], abs=0.04)
    clean = (Surer()(data.x).argmax(1) != data.y).float().mean().item()
    assert errors[0] > clean + 0.1
