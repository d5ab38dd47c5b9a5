"""The attack on feature squeezing that chooses what rounding leaves before anything else."""

import inspect
import itertools

import pytest
import torch
from small import attacker, seen, turn_on
from torch import nn

from arena import Labelled
from arena.actions.lp import L2, Linf
from arena.attacks.levels_first import LevelsFirst, _LevelSearch, squeezes
from arena.classification import decide
from arena.costs import Negation, Refusal
from arena.defenses.feature_squeezing import Squeezing
from arena.ledger import Ledger
from arena.training.classifiers import committed
from arena.transformations.bit_depth import BitDepth
from arena.transformations.gaussian_noise import GaussianNoise

SPACE = Linf(0.2)
BIT = BitDepth(bits=1)


class Sum(nn.Module):
    """Class 1 by log-odds of a (x0 + x1) - b; the third value says nothing."""

    def __init__(self, a=2.0, b=2.2):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        """Logits [B, 2]."""
        odds = self.a * (x[:, 0] + x[:, 1]) - self.b
        return torch.stack([torch.zeros(len(x)), odds], 1)


def detector(threshold, model=None, squeezer=BIT, classes=2):
    module = Squeezing(model or Sum(), (squeezer,), classes)
    module.threshold.fill_(threshold)
    return committed(module, classes)


def turn_against(model, data, attack=None, ledger=None, batch_size=64):
    view = seen(model, data, ledger)
    return turn_on(
        view, attack or LevelsFirst(), data, SPACE, Negation(Refusal()), batch_size=batch_size
    )


DATA = Labelled(torch.tensor([[0.45, 0.4, 0.9]]), torch.zeros(1, dtype=torch.int64), 2)


@pytest.mark.parametrize("name", ["model", "threshold"])
def test_a_detector_is_known_by_its_children_and_buffers(name):
    """A static look, which is all that isinstance() takes from Python 3.12 on, finds neither."""
    module = Squeezing(Sum(), (BIT,), 2)
    with pytest.raises(AttributeError):
        inspect.getattr_static(module, name)
    assert squeezes(module)
    delattr(module, name)
    assert not squeezes(module)


def test_both_values_are_moved_over_one_half_and_the_rest_matches():
    """Rounded to (1, 1) the odds are 1.8, p = .858; of (.65, .6) they are .3, p = .574: .567 apart.

    So a threshold of .6 lets it pass, and one of .5 does not.
    """
    attack = LevelsFirst()
    passing, refusing = detector(0.6), detector(0.5)
    moved = attack.respond(turn_against(passing, DATA))
    assert decide(passing.logits(moved), 2).tolist() == [1]
    assert torch.equal(moved[:, :2].round(), torch.ones(1, 2))
    assert bool(SPACE.contains(DATA.x, moved).all())
    moved = attack.respond(turn_against(refusing, DATA))
    assert decide(refusing.logits(moved), 2).tolist() != [1]


def test_who_is_out_of_reach_is_left_alone():
    """Both values moved, the odds are -2.2 and q is .9 and .1: .8 from the nearest wrong p."""
    model = detector(0.75, Sum(b=6.2))
    ledger = Ledger(1, None)
    moved = LevelsFirst(steps=50).respond(turn_against(model, DATA, ledger=ledger))
    assert torch.equal(moved, DATA.x)
    assert ledger.gradients.tolist() == [3]  # one before each of two flips, one to find no third
    reached = Ledger(1, None)
    LevelsFirst(steps=50).respond(turn_against(detector(0.81, Sum(b=6.2)), DATA, ledger=reached))
    assert reached.gradients.tolist() == [3 + 50]


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("seed", range(5))
def test_no_single_flip_lowers_the_margin_that_was_found(seed):
    model = network(seed)
    x = torch.rand(6, 8, generator=torch.Generator().manual_seed(seed))
    data = Labelled(x, model(x.round()).argmax(1), 3)
    search = _LevelSearch(LevelsFirst(), turn_against(detector(0.4, model, classes=3), data))
    rows = torch.arange(6)
    levels = search.levels(rows)
    free = (x > 0.3) & (x <= 0.7)
    assert torch.equal(levels[~free], x.round()[~free])

    def margin(bits):
        scores = model(bits)
        own = scores.gather(1, data.y[:, None]).squeeze(1)
        return own - scores.scatter(1, data.y[:, None], -torch.inf).amax(1)

    found = margin(levels)
    assert (found <= margin(x.round())).all()
    for place in range(8):
        flipped = levels.clone()
        flipped[:, place] = torch.where(free[:, place], 1 - levels[:, place], levels[:, place])
        assert (margin(flipped) >= found - 1e-5).all()


def test_of_a_linear_model_the_best_of_all_levels_is_found():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(8, 2)
    x = 0.35 + 0.3 * torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    data = Labelled(x, torch.zeros(4, dtype=torch.int64), 2)
    search = _LevelSearch(LevelsFirst(), turn_against(detector(0.4, model), data))
    logits = model(search.levels(torch.arange(4)))
    all_levels = torch.tensor([*itertools.product((0.0, 1.0), repeat=8)])
    every = model(all_levels)
    least = (every[:, 0] - every[:, 1]).min()
    torch.testing.assert_close(logits[:, 0] - logits[:, 1], least.expand(4))


def test_the_batch_size_changes_nothing():
    model = detector(0.5, network(3), classes=3)
    x = torch.rand(20, 8, generator=torch.Generator().manual_seed(3))
    data = Labelled(x, model.logits(x)[:, :3].argmax(1), 3)
    whole, parts = (
        LevelsFirst(steps=20).respond(turn_against(model, data, batch_size=size))
        for size in (64, 3)
    )
    torch.testing.assert_close(whole, parts)


def test_a_defender_who_rounds_nothing_and_another_ball_are_refused():
    model = detector(0.5, squeezer=GaussianNoise(0.1))
    with pytest.raises(ValueError, match="compares answers to those after BitDepth"):
        LevelsFirst().respond(turn_against(model, DATA))
    with pytest.raises(ValueError, match="LevelsFirst cannot serve actions=L2; use actions=linf"):
        LevelsFirst().check(attacker(LevelsFirst(), actions=L2(1.0)))
