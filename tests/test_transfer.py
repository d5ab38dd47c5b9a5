"""Transfer from several surrogates: what their combination is, and that it fools more."""

import pytest
import torch
from small import LINEAR, attacker, defender, evasion, last, turn_on
from torch.nn.functional import cross_entropy

from arena import Knowledge, Labelled
from arena.actions.lp import Linf
from arena.attacks.engines.averaged import averaged
from arena.attacks.input_diversity import InputDiversity
from arena.attacks.pgd import PGD
from arena.attacks.transfer import Transfer
from arena.attacks.translation_invariant import TranslationInvariant
from arena.costs import CostMatrix, ErrorRate, Negation, Targeted
from arena.defenses.erm import ERM
from arena.knowledge import View
from arena.learners.networks import CNN, MLP
from arena.training.classifiers import committed

COMBINE = ["logits", "probabilities", "losses"]
COSTS = [
    Negation(ErrorRate()),
    Targeted(1),
    CostMatrix(((0.0, 1.0, 3.0), (2.0, 0.0, 1.0), (0.5, 4.0, 1.0))),
]


def points(n=30, classes=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 4, 4, generator=generator)
    return Labelled(x, torch.randint(0, classes, (n,), generator=generator), classes)


def members(n=3, classes=3):
    return [committed(MLP((8,)).build((1, 4, 4), classes, seed=k), classes) for k in range(n)]


def ensemble(combine, data, cost=None, of=None):
    """What the attack on these surrogates sees."""
    of = of or members(classes=data.classes)
    turn = turn_on(None, PGD(), data, cost=cost)
    return averaged(of, [1 / len(of)] * len(of), combine, turn)


def slope(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def test_answers_are_the_mean_of_logits_or_of_probabilities():
    data, rows = points(), torch.arange(30)
    each = torch.stack([member.logits(data.x) for member in members()])
    for combine in ("logits", "losses"):
        torch.testing.assert_close(ensemble(combine, data).logits(data.x, rows), each.mean(0))
    mean = ensemble("probabilities", data).logits(data.x, rows).exp()
    torch.testing.assert_close(mean, each.softmax(2).mean(0))
    for combine in COMBINE:
        view = ensemble(combine, data)
        logits = view.logits(data.x, rows)
        torch.testing.assert_close(view.scores(data.x, rows), logits.log_softmax(1))
        assert torch.equal(view.labels(data.x, rows), logits.argmax(1))


@pytest.mark.parametrize("scale", [1.0, 60.0], ids=["unsure", "sure"])
@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_the_gradient_of_combined_losses_is_that_of_their_mean(cost, scale):
    data, rows, of = points(), torch.arange(30), members()
    for member in of:
        member.module[-1].weight.mul_(scale)

    def loss(logits):
        return cost.surrogate(logits, data.y, 3)

    view = ensemble("losses", data, cost, of)
    found = slope(lambda x: loss(view.logits(x, rows)), data.x)
    expected = slope(lambda x: torch.stack([loss(m.logits(x)) for m in of]).mean(0), data.x)
    assert (expected != 0).any()
    # Where the combined loss is flat to the last bit there is no way to move along.
    flat = slope(loss, view.logits(data.x, rows)).double().square().sum(1) < 1e-60
    assert flat.float().mean() < 0.5
    torch.testing.assert_close(found[~flat], expected[~flat], rtol=1e-3, atol=1e-4)


def test_combined_losses_are_no_combined_logits():
    data, rows = points(), torch.arange(30)
    found = []
    for combine in COMBINE:
        view = ensemble(combine, data)
        found.append(slope(lambda x, v=view: cross_entropy(v.logits(x, rows), data.y), data.x))
    for i, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-4 for other in found[:i])


@pytest.mark.parametrize("combine", COMBINE)
def test_an_ensemble_of_one_model_twice_is_that_model(combine):
    data, strategy = points(), PGD(4, 0.3)
    moved = []
    for of in (members(1), members(1) * 2):
        view = ensemble(combine, data, of=of)
        moved.append(strategy.respond(turn_on(view, strategy, data, Linf(0.1))))
    torch.testing.assert_close(*moved)


@pytest.mark.parametrize("combine", COMBINE)
def test_a_broken_surrogate_spoils_only_the_examples_it_breaks_on(combine):
    class Cracked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = MLP((8,)).build((1, 4, 4), 3, seed=9)

        def forward(self, x):
            return self.inner(x) + torch.where(x[:, :, 0, 0] > 2, torch.nan, 0.0)

    data, strategy = points(), PGD(4, 0.3)
    data = Labelled(data.x, data.y, 3, (0.0, 9.0))
    cracked = Labelled(data.x.clone(), data.y, 3, (0.0, 9.0))
    cracked.x[::2, :, 0, 0] += 3
    of, moved = [*members(2), committed(Cracked(), 3)], []
    for given in (data, cracked):
        view = ensemble(combine, given, of=of)
        moved.append(strategy.respond(turn_on(view, strategy, given, Linf(0.1, (0.0, 9.0)))))
    assert torch.equal(moved[1][::2], cracked.x[::2]), "nothing was found, so nothing is played"
    torch.testing.assert_close(moved[1][1::2], moved[0][1::2])


# Training --------------------------------------------------------------------------------------


class Counted(ERM):
    """Records what it is asked to train, and by which seed."""

    log: list

    def train(self, data, seed, task=None, learner=None, store=None):
        Counted.log.append((seed, learner or self.learner))
        return super().train(data, seed, task, learner, store)


def surrogates(architecture=False, **options):
    """The seeds and architectures of a match's surrogates."""
    Counted.log = []
    strategy = Transfer(attack=PGD(2, 0.4), **options)
    knowledge = Knowledge(architecture=architecture)
    last(evasion(attacker(strategy, knowledge), defender(ERM(LINEAR, epochs=1))))
    return list(Counted.log)


def test_every_guess_is_trained_once_for_every_seed():
    small, large = (Counted(MLP((width,)), epochs=1) for width in (4, 8))
    (alone,) = surrogates(guess=small)
    log = surrogates(guess=(small, large), seeds=3)
    assert [learner for _, learner in log] == [small.learner, large.learner] * 3
    assert len({seed for seed, _ in log}) == 6
    assert log[0] == alone, "the first is the one that would be alone"
    known = surrogates(guess=(small, large), architecture=True)
    assert [learner for _, learner in known] == [LINEAR] * 2


def test_one_guess_in_a_list_plays_as_it_does_alone():
    played = []
    for guess in (ERM(LINEAR, epochs=1), (ERM(LINEAR, epochs=1),)):
        for combine in COMBINE:
            strategy = Transfer(guess, PGD(3, 0.4), combine=combine)
            arena = evasion(attacker(strategy, Knowledge.no_box()))
            played.append(last(arena).costs["attacker"])
    assert all(torch.equal(played[0], other) for other in played)


def test_no_guess_is_no_attack():
    with pytest.raises(ValueError, match="at least one algorithm"):
        Transfer(())


def test_the_target_is_never_asked():
    strategy = Transfer(ERM(LINEAR, epochs=1), PGD(2, 0.4), seeds=2)
    record = last(evasion(attacker(strategy, Knowledge.no_box())))
    assert strategy.needs == {"defender": View}
    assert record.metrics["queries"] == record.metrics["gradients"] == 0


# Strength --------------------------------------------------------------------------------------


def fooled(strategy, seed):
    """The error of a convolutional net under what fools the attacker's own, smaller ones."""
    players = (
        attacker(strategy, Knowledge.no_box(), actions=Linf(0.2)),
        defender(ERM(CNN((16, 32)), epochs=12)),
    )
    return last(evasion(*players, seed=seed, examples=300, attacker_share=0.3)).metrics[
        "attacked_error"
    ]


def test_several_surrogates_and_smooth_gradients_fool_more():
    attack, guess = PGD(10, 0.25), ERM(CNN((8, 16)), epochs=12)
    alone, several, smooth = (
        [fooled(strategy, seed) for seed in range(2)]
        for strategy in (
            Transfer(guess, attack),
            Transfer(guess, attack, seeds=4),
            Transfer(guess, TranslationInvariant(attack, radius=2)),
        )
    )
    assert all(more > one + 0.05 for one, more in zip(alone, several, strict=True))
    assert sum(smooth) > sum(alone) + 0.05


def test_wrappers_go_around_the_attack_on_the_surrogates():
    for attack in (InputDiversity(PGD(2, 0.4)), TranslationInvariant(PGD(2, 0.4))):
        for combine in COMBINE:
            strategy = Transfer(ERM(LINEAR, epochs=1), attack, 2, combine)
            record = last(evasion(attacker(strategy, Knowledge.no_box()), examples=20))
            assert record.metrics["no_answer"] == 0
