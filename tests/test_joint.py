"""The joint attack on a detector, where the detector's own slope is flat."""

from dataclasses import dataclass

import torch
from small import seen, turn_on
from torch import nn

from arena import Labelled, chance
from arena.actions.lp import Linf
from arena.attacks.joint import Joint
from arena.attacks.pgd import PGD
from arena.classification import decide
from arena.costs import Negation, Refusal
from arena.defenses.feature_squeezing import Squeezing
from arena.knowledge import REFUSED
from arena.ledger import Ledger
from arena.training.classifiers import committed
from arena.transformations.gaussian_noise import GaussianNoise
from arena.transformations.transformation import Transformation

SURE = 1000.0  # slope of the logits: probabilities are 0 or 1 in float32, but at the boundary


@dataclass(frozen=True)
class Higher(Transformation):
    """Adds a constant."""

    by: float = 0.2

    def __call__(self, x, key):
        """The higher inputs."""
        return x + self.by


class Step(nn.Module):
    """Class 0 above 1/2, class 1 below."""

    def forward(self, x):
        """Logits [B, 2]."""
        return torch.stack([SURE * (x[:, 0] - 0.5), torch.zeros(len(x))], 1)


def detector(*squeezers):
    module = Squeezing(Step(), squeezers, 2)
    module.threshold.fill_(1.0)
    return committed(module, 2)


DATA = Labelled(torch.full((4, 1), 0.7), torch.zeros(4, dtype=torch.int64), 2)
PLAIN = PGD(40, 0.05, random_start=False)


def answers(attack):
    """What the detector answers to an attack that may move inputs by 0.6, and how far it went."""
    model = detector(Higher())
    turn = turn_on(seen(model, DATA), attack, DATA, Linf(0.6), Negation(Refusal()))
    moved = attack.respond(turn)
    return decide(model.logits(moved), 2), moved


def test_where_the_model_is_sure_a_descent_on_the_detector_stops_and_the_joint_one_does_not():
    """Below 1/2 the input is wrong and what is 0.2 higher is right; below 0.3 both are wrong."""
    labels, moved = answers(PLAIN)
    assert (labels == REFUSED).all() and ((moved > 0.3) & (moved < 0.5)).all()
    labels, moved = answers(Joint(PLAIN))
    assert (labels == 1).all() and (moved < 0.3).all()


def test_it_sees_the_mean_of_what_the_looks_are_answered():
    model = detector(Higher(0.001), Higher(-0.002))
    x = torch.tensor([[0.5], [0.501]])
    data = Labelled(x, torch.zeros(2, dtype=torch.int64), 2)
    ledger, rows = Ledger(2, None), torch.arange(2)
    view = seen(model, data, ledger)
    found = Joint(PLAIN).through(view, turn_on(view, PLAIN, data)).logits(x, rows)
    looks = torch.stack([x, x + 0.001, x - 0.002])[..., 0] - 0.5
    truth = torch.stack([SURE * looks, torch.zeros_like(looks)], 2).log_softmax(2).mean(0)
    torch.testing.assert_close(found, truth)
    assert ledger.queries.tolist() == [1, 1]


def test_random_squeezers_have_fresh_coins_in_every_pass():
    view = seen(detector(GaussianNoise(0.01)), DATA)
    joint, rows = Joint(PLAIN).through(view, turn_on(view, PLAIN, DATA)), torch.arange(4)
    x = torch.full((4, 1), 0.5)
    assert not torch.equal(joint.logits(x, rows), joint.logits(x, rows))


def test_who_compares_nothing_is_attacked_as_it_is():
    view = seen(committed(Step(), 2), DATA)
    assert Joint(PLAIN).through(view, turn_on(view, PLAIN, DATA)) is view


def test_a_detector_looks_as_it_compares():
    module = detector(Higher(), GaussianNoise(0.1)).module
    x, key = DATA.x, chance.keys(0, 4)
    looks = module.compared(x, key)
    assert looks.shape == (3, 4, 2)
    scores, distance = module.looked(x, key)
    assert torch.equal(scores, looks[0])
    expected = (looks[1:].exp() - looks[0].exp()).abs().sum(2).amax(0)
    torch.testing.assert_close(distance, expected)
