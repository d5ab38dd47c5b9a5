"""What defenders do to hidden activations: dropout, and pruning at random."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from small import attacker, defender, evasion, last
from torch import nn

from arena import Labelled, chance
from arena.attacks.eot import EOT
from arena.attacks.pgd import PGD
from arena.defenses.erm import ERM
from arena.learners.activations import hidden_activations
from arena.learners.dropout import Dropout
from arena.learners.fovea import Fovea
from arena.learners.networks import CNN, MLP
from arena.learners.preprocessing import Preprocessing
from arena.learners.stochastic_pruning import Pruned, StochasticActivationPruning, pruned
from arena.learners.wide_resnet import WideResNet
from arena.training.classifiers import RandomClassifier, committed
from arena.transformations.gaussian_noise import GaussianNoise


def images(n=20, seed=1):
    """Random images; the first is black."""
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    x[0] = 0.0
    return x


# Dropout ---------------------------------------------------------------------------------------


def test_dropout_stands_after_each_hidden_activation():
    # Every block of a WideResNet has two activations, and one stands before the mean.
    for learner, hidden in ((CNN((3, 4), 5), 3), (WideResNet(10, 1), 7)):
        module = Dropout(learner, 0.25).build((1, 8, 8), 4, seed=0)
        leaves = [part for part in module.modules() if not any(part.children())]
        kinds = [type(leaf) for leaf in leaves]
        assert kinds.count(nn.Dropout) == kinds.count(nn.ReLU) == hidden
        for before, leaf in pairwise(leaves):
            assert isinstance(leaf, nn.Dropout) is isinstance(before, nn.ReLU)
        assert {leaf.p for leaf in leaves if isinstance(leaf, nn.Dropout)} == {0.25}


@pytest.mark.parametrize("learner", [CNN(), WideResNet(10, 1)], ids=["cnn", "wide_resnet"])
def test_dropout_does_nothing_when_the_model_is_used(learner):
    x = images()
    bare = learner.build((1, 8, 8), 4, seed=2).eval()
    dropping = Dropout(learner, 0.5).build((1, 8, 8), 4, seed=2)
    assert torch.equal(dropping.eval()(x), bare(x))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert ((dropping.train()(x) - bare(x)).abs().amax(1) > 0).all()


@pytest.mark.parametrize("learner", [Dropout, StochasticActivationPruning])
def test_activations_must_be_there_to_be_dropped(learner):
    said = f"{learner.__name__} acts on hidden activations, and this architecture has none"
    with pytest.raises(ValueError, match=said):
        learner(MLP(())).build((1, 8, 8), 4, seed=0)


def test_an_activation_that_comes_last_is_the_answer_and_one_may_stand_in_many_places():
    once = nn.ReLU()
    module = nn.Sequential(once, nn.Flatten(), nn.Sequential(once, nn.Flatten()), nn.ReLU())
    assert list(hidden_activations(module, "a test")) == ["0", "2.0"]


# Stochastic activation pruning -----------------------------------------------------------------

ACTIVATIONS = torch.tensor([0.0, 0.1, 0.5, -1.0, 2.0, 0.02])


@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_on_average_a_pruned_activation_is_what_it_was(share):
    n = 100_000
    p = ACTIVATIONS.abs() / ACTIVATIONS.abs().sum()
    q = 1 - (1 - p) ** round(6 * share)
    found = pruned(ACTIVATIONS.expand(n, -1), share, chance.keys(1, n))
    error = (ACTIVATIONS**2 * (1 - q) / q.clamp(min=1e-9) / n).sqrt()
    assert ((found.mean(0) - ACTIVATIONS).abs() <= 4 * error).all()
    kept = (found != 0).float()
    assert ((kept.mean(0) - q).abs() <= 4 * (q * (1 - q) / n).sqrt()).all()


def test_a_unit_is_kept_as_often_as_draws_with_replacement_meet_it():
    n, draws = 100_000, 6
    p = (ACTIVATIONS.abs() / ACTIVATIONS.abs().sum()).double().numpy()
    drawn = np.random.default_rng(0).multinomial(draws, p, n) > 0
    kept = pruned(ACTIVATIONS.expand(n, -1), 1.0, chance.keys(1, n)) != 0
    # The difference of two frequencies: a standard error of at most (1/2) sqrt(2 / n) = .0022.
    assert np.abs(drawn.mean(0) - kept.double().mean(0).numpy()).max() < 0.009


def test_a_lone_activation_is_kept_and_none_is_no_trouble():
    h = torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    found = pruned(h, 1.0, chance.keys(0, 2))
    torch.testing.assert_close(found, h)
    (slope,) = torch.autograd.grad(found.sum(), h)
    assert slope.isfinite().all()


def test_the_gradient_of_pruning_is_its_derivative_at_the_same_coins():
    h = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    key = chance.keys(3, 4)
    assert 0 < (pruned(h, 1.0, key) == 0).sum() < 24
    assert torch.autograd.gradcheck(lambda given: pruned(given, 1.0, key), h)


SAP = StochasticActivationPruning(MLP((40, 30)))


def test_pruning_leaves_training_alone_and_takes_coins_after():
    module, bare = (learner.build((1, 8, 8), 4, seed=1) for learner in (SAP, SAP.learner))
    x, key = images(), chance.keys(0, 20)
    assert torch.equal(module(x, key), bare(x)) and torch.equal(module(x), bare(x))
    model = committed(module, 4)
    assert type(model) is RandomClassifier and isinstance(model.module, Pruned)
    answers = [model.drawn(chance.keys(seed, 20)).logits(x) for seed in (0, 0, 1)]
    assert torch.equal(answers[0], answers[1])
    busy = slice(1, None)  # the first image is black
    assert ((answers[0] - answers[2])[busy].abs().amax(1) > 0).all()
    assert torch.equal(model.logits(x), model.logits(x))
    for size in (1, 7):
        pairs = zip(x.split(size), key.split(size), strict=True)
        parts = [model.drawn(coins).logits(part) for part, coins in pairs]
        torch.testing.assert_close(torch.cat(parts), answers[0])


def test_every_layer_has_coins_of_its_own():
    class Twice(nn.Module):
        """Asks one activation twice, about the same."""

        def __init__(self):
            super().__init__()
            self.activation, self.last = nn.ReLU(), nn.Flatten()

        def forward(self, x):
            return self.last(torch.stack([self.activation(x), self.activation(x)], 1))

    x, key = torch.ones(500, 50), chance.keys(0, 500)
    once, again = (Pruned(Twice(), 1.0).eval()(x, key) != 0).chunk(2, 1)
    q = 1 - (1 - 1 / 50) ** 50
    # Independent coins agree this often; a standard error of .0032.
    assert abs(float((once == again).float().mean()) - (q**2 + (1 - q) ** 2)) < 0.013


def test_pruning_reaches_into_blocks_and_leaves_no_trace_there():
    learner = StochasticActivationPruning(WideResNet(10, 1))
    module = learner.build((1, 8, 8), 4, seed=1).eval()
    x, (key, other) = images(), (chance.keys(seed, 20) for seed in (0, 1))
    found = module(x, key)
    assert torch.equal(module(x, key), found) and not torch.equal(module(x, other), found)
    assert torch.equal(module.module(x), learner.learner.build((1, 8, 8), 4, seed=1).eval()(x))


def test_pruning_around_other_coins_hands_on_some_of_its_own():
    learner = StochasticActivationPruning(Preprocessing(MLP((20,)), GaussianNoise(0.1)))
    module = learner.build((1, 8, 8), 4, seed=1).eval()
    x, (key, other) = images(), (chance.keys(seed, 20) for seed in (0, 1))
    assert torch.equal(module(x, key), module(x, key))
    assert not torch.equal(module(x, key), module(x, other))


def test_pruning_refuses_activations_of_other_rows_than_the_inputs():
    halves = nn.Sequential(nn.Unflatten(1, (2, 32)), nn.Flatten(0, 1), nn.ReLU(), nn.Flatten())
    with pytest.raises(ValueError, match="an activation of 40 rows for 20 inputs"):
        Pruned(halves, 1.0).eval()(images().flatten(1))


def test_a_pruned_network_trains_as_its_architecture_does():
    data = Labelled(images(60), torch.arange(60) % 4, 4)
    trained = [ERM(learner, epochs=2).train(data, seed=3) for learner in (SAP, SAP.learner)]
    for one, other in zip(*(model.state().values() for model in trained), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("learner", [SAP, Fovea(SAP, 2, 0.8)], ids=["alone", "behind crops"])
def test_a_match_against_pruning_depends_on_no_batch_size(learner):
    strategy, model = EOT(PGD(2, 0.4), draws=2), ERM(learner, epochs=2)
    records = [
        last(evasion(attacker(strategy), defender(model), examples=30, rows=rows))
        for rows in (1, 7, 1024)
    ]
    for record in records:
        torch.testing.assert_close(record.costs, records[0].costs)
        assert record.metrics["queries"] == records[0].metrics["queries"]
