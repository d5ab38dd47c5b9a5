"""Direct methods: trainings against an attacker, each held to its formula and to its limits."""

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from test_defenses import error, pgd_error, same, separable, task_of, two_kinds_of_features
from torch.nn.functional import cross_entropy, mse_loss

from arena import chance
from arena.actions.features import FeatureChanges
from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.fgsm import FGSM
from arena.attacks.noise import Noise
from arena.attacks.pgd import PGD
from arena.core import ActionSpace, Labelled, Strategy
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.divergence import divergence
from arena.defenses.ensemble_adversarial_training import EnsembleAdversarialTraining
from arena.defenses.erm import ERM
from arena.defenses.free import FreeAdversarialTraining
from arena.defenses.inner import frozen
from arena.defenses.logit_pairing import AdversarialLogitPairing
from arena.defenses.mart import MART
from arena.defenses.trades import TRADES
from arena.defenses.weight_perturbation import AdversarialWeightPerturbation
from arena.knowledge import WhiteBox
from arena.learners.networks import MLP
from arena.store import Store
from arena.training.trainer import Step

LINEAR = MLP(())
SMALL = {"learner": MLP((6,)), "epochs": 2, "batch_size": 32}
INNER = PGD(2, 0.5, returns="last")
TRAINERS = {
    "trades": TRADES(**SMALL, steps=2, step=0.5),
    "mart": MART(**SMALL, inner=INNER),
    "pairing": AdversarialLogitPairing(**SMALL, inner=INNER),
    "awp": AdversarialWeightPerturbation(**SMALL, inner=INNER),
    "free": FreeAdversarialTraining(**SMALL, replays=3),
    "fast": AdversarialTraining(**SMALL, inner=FGSM(1.25, random_start=True)),
    "ensemble": EnsembleAdversarialTraining(**SMALL),
}
SPACES = [Linf(0.1), L2(0.2), L1(0.3), L0(1)]

every_trainer = pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
every_space = pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)


@dataclass(frozen=True)
class Up(Strategy):
    """An inner attack whose answer is known: everything half of eps higher."""

    needs: ClassVar = {"defender": WhiteBox}

    def respond(self, turn):
        space = turn.player.actions
        return space.project(turn.data.x, turn.data.x + space.eps / 2)


def some(classes, n=12, features=4):
    """Inputs from the middle of the box, so that no side of it is in reach."""
    x = 0.3 + 0.4 * chance.uniform(chance.keys(1, n), (features,))
    return Labelled(x, torch.arange(n) % classes, classes)


def begun(trainer, data, space=None, seed=11, prepared=None):
    """A module in training, and the step that it is about to make."""
    module = trainer.learner.build(data.shape, data.classes, seed=0).train()
    return module, Step(data, seed, task=task_of(data, space), prepared=prepared)


def probabilities(module, x):
    return module(x).double().softmax(1)


def kl(p, q):
    return (p * (p / q).log()).sum(1)


# The ramp ---------------------------------------------------------------------------------------


@every_space
def test_a_ramp_raises_the_radius_linearly(space):
    data, trainer = some(3), AdversarialTraining(**SMALL, ramp=0.5, inner=Up())
    module, start = begun(trainer, data, space)
    whole = trainer.moved(module, replace(start, progress=0.5)) - data.x
    for progress, share in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        step = replace(start, progress=progress)
        faced = trainer.faced(step).actions
        # Features are counted, and a share of one is one.
        radius = math.ceil(share * space.eps) if isinstance(space, L0) else share * space.eps
        assert faced == replace(space, eps=radius)
        moved = trainer.moved(module, step) - data.x
        assert (space.size(data.x, data.x + moved) <= radius * (1 + 1e-5)).all()
        if share == 1.0:
            assert torch.equal(moved, whole) and (moved != 0).any()


@pytest.mark.parametrize("name", ["trades", "fast", "ensemble", "awp"])
def test_at_the_foot_of_a_ramp_there_is_no_attacker_yet(name):
    data, trainer = some(3), replace(TRAINERS[name], ramp=0.5)
    module, step = begun(trainer, data, Linf(0.3), prepared=())
    expected = cross_entropy(module(data.x), data.y)
    torch.testing.assert_close(trainer.loss(module, step), expected)
    assert trainer.loss(module, replace(step, progress=0.5)) > expected + 0.01


def test_a_ramp_needs_a_radius():
    data, trainer = some(2), AdversarialTraining(**SMALL, ramp=0.5, inner=Up())
    module, step = begun(trainer, data, FeatureChanges())
    with pytest.raises(ValueError, match=r"AdversarialTraining.ramp = 0.5 raises a radius, and"):
        trainer.moved(module, step)


# --- the formulas ---------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
def test_the_divergence_is_that_of_the_probabilities(classes):
    p, q = (3.0 * chance.normal(chance.keys(seed, 20), (classes,)) for seed in (0, 1))
    found = divergence(p, q)
    expected = kl(p.double().softmax(1), q.double().softmax(1)).float()
    torch.testing.assert_close(found, expected)
    assert (found > 0).all()
    assert torch.equal(divergence(p, p), torch.zeros(20))
    assert not torch.allclose(found, divergence(q, p)), "it is not symmetric"


@pytest.mark.parametrize("classes", [2, 5])
def test_trades_is_cross_entropy_and_the_divergence_to_what_its_ascent_found(classes):
    data = some(classes)
    trainer = TRADES(MLP((6,)), beta=2.5)
    module, step = begun(trainer, data)
    moved = trainer.moved(module, step)
    apart = kl(probabilities(module, data.x), probabilities(module, moved)).mean()
    assert apart > 1e-5
    expected = cross_entropy(module(data.x), data.y) + 2.5 * apart.float()
    torch.testing.assert_close(trainer.loss(module, step), expected)


@pytest.mark.parametrize("classes", [2, 5])
def test_mart_is_the_boosted_cross_entropy_and_the_weighted_divergence(classes):
    data = some(classes)
    trainer = MART(MLP((6,)), inner=Up(), weight=3.0)
    module, step = begun(trainer, data)
    clean, attacked = (probabilities(module, x) for x in (data.x, trainer.moved(module, step)))
    of_truth = attacked.gather(1, data.y[:, None])[:, 0]
    wrong = attacked.scatter(1, data.y[:, None], 0.0).amax(1)
    doubt = 1 - clean.gather(1, data.y[:, None])[:, 0]
    each = -of_truth.log() - (1 - wrong).log() + 3.0 * kl(clean, attacked) * doubt
    torch.testing.assert_close(trainer.loss(module, step).double(), each.mean())


def test_mart_stays_finite_where_the_model_is_sure_of_a_mistake():
    """1 - p_k is 0 in float32; by the logits, the loss is the margin, twice."""
    module, data = torch.nn.Identity(), Labelled(torch.tensor([[0.0, 60.0]]), torch.tensor([0]), 2)
    found = MART(None, weight=0.0).against(module, data, data.x)
    torch.testing.assert_close(found, torch.tensor(120.0))


@pytest.mark.parametrize("clean", [0.0, 0.5])
def test_pairing_adds_the_mean_squared_distance_of_logits(clean):
    data = some(3)
    trainer = AdversarialLogitPairing(MLP((6,)), inner=Up(), clean=clean, weight=4.0)
    module, step = begun(trainer, data)
    ours, theirs = module(data.x), module(trainer.moved(module, step))
    mixture = clean * cross_entropy(ours, data.y) + (1 - clean) * cross_entropy(theirs, data.y)
    expected = mixture + 4.0 * (ours - theirs).square().mean()
    assert mse_loss(ours, theirs) > 1e-5
    torch.testing.assert_close(trainer.loss(module, step), expected)


def test_weights_are_perturbed_by_a_share_of_their_length_and_restored():
    data, gamma = some(3), 0.3
    trainer = AdversarialWeightPerturbation(MLP((6,)), inner=Up(), gamma=gamma)
    module, step = begun(trainer, data)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    moved = trainer.moved(module, step)

    # By hand, on a second module: the gradient where every weight has gone up the loss.
    other, _ = begun(trainer, data)
    up = torch.autograd.grad(cross_entropy(other(moved), data.y), list(other.parameters()))
    with torch.no_grad():
        for p, g in zip(other.parameters(), up, strict=True):
            if p.ndim > 1:
                p += gamma * p.norm() * g / g.norm()
    worse = cross_entropy(other(moved), data.y)
    worse.backward()

    loss = trainer.update(module, torch.optim.SGD(module.parameters(), lr=1.0), step)
    torch.testing.assert_close(loss, worse.detach())
    assert loss > cross_entropy(module(moved), data.y)
    for (name, p), q in zip(module.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), before[name] - q.grad)

    module, step = begun(trainer, data)
    trainer.update(module, torch.optim.SGD(module.parameters(), lr=0.0), step)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())


def test_a_weight_without_a_slope_stays():
    """Behind a dead layer: no direction to go, and nothing divided by zero."""
    data = some(2)
    trainer = AdversarialWeightPerturbation(MLP((3,)), inner=Up())
    module, step = begun(trainer, data)
    with torch.no_grad():
        module[1].bias.fill_(-100.0)
    loss = trainer.update(module, torch.optim.SGD(module.parameters(), lr=0.1), step)
    assert loss.isfinite() and all(p.isfinite().all() for p in module.parameters())


@every_space
def test_free_replays_climb_the_loss_by_the_gradient_of_the_same_pass(space):
    data = some(3)
    trainer = FreeAdversarialTraining(MLP((6,)), replays=4, step=0.5)
    module, step = begun(trainer, data, space)
    seen = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    still = torch.optim.SGD(module.parameters(), lr=0.0)
    trainer.update(module, still, step)
    assert len(seen) == 4, "a pass a replay, and no other"
    assert torch.equal(seen[0], space.sample(data.x, chance.keys(step.seed, len(data))))
    for before, after in pairwise(seen[:4]):
        x = before.clone().requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(module(x), data.y), x)
        expected = space.project(data.x, before + 0.5 * space.eps * space.steepest(slope))
        torch.testing.assert_close(after, expected)
        assert space.contains(data.x, after).all()


def test_free_steps_once_a_replay():
    data = some(3)
    trainer = FreeAdversarialTraining(MLP((6,)), replays=4)
    module, step = begun(trainer, data)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    trainer.update(module, optimizer, step)
    assert {int(state["step"]) for state in optimizer.state.values()} == {4}


def test_an_ensembles_attacks_are_on_every_model_in_turn():
    data = separable(60)
    trainer = EnsembleAdversarialTraining(**SMALL, inner=FGSM(), static=2)
    static = trainer.prepared(data, 3, None, trainer.learner, None)
    assert len(static) == 2 and not any(p.requires_grad for m in static for p in m.parameters())
    module, step = begun(trainer, data, prepared=static)
    alone = AdversarialTraining(**SMALL, inner=FGSM())
    possible = [alone.moved(model, step) for model in (module, *static)]
    drawn = []
    for seed in range(60):
        moved = trainer.moved(module, replace(step, seed=seed))
        drawn += [number for number, x in enumerate(possible) if torch.equal(x, moved)]
    # A third each: 20 of 60, with a standard deviation of 3.7.
    assert len(drawn) == 60 and all(8 < drawn.count(number) < 32 for number in range(3))
    assert module.training and all(p.requires_grad for p in module.parameters())


def test_static_models_are_plainly_trained_once_and_differ(tmp_path):
    data, trainer = separable(60), EnsembleAdversarialTraining(**SMALL, static=2)
    store = Store(tmp_path)
    whole = trainer.train(data, 3, task_of(data), store=store)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    first, second = trainer.prepared(data, 3, None, trainer.learner, store)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    assert not torch.equal(first[1].weight, second[1].weight)
    assert same(whole, trainer.train(data, 3, task_of(data)))


# --- the limits -----------------------------------------------------------------------------


def train(trainer, data=None, space=None, seed=3):
    data = data or separable(100)
    return trainer.train(data, seed, task_of(data, space))


@pytest.mark.parametrize(
    ("special", "general"),
    [
        (TRADES(**SMALL, beta=0.0), ERM(**SMALL)),
        (
            AdversarialLogitPairing(**SMALL, inner=INNER, weight=0.0),
            AdversarialTraining(**SMALL, inner=INNER, clean=0.5),
        ),
        (
            AdversarialWeightPerturbation(**SMALL, inner=INNER, gamma=0.0),
            AdversarialTraining(**SMALL, inner=INNER),
        ),
        (
            FreeAdversarialTraining(**SMALL, replays=1),
            AdversarialTraining(**SMALL, inner=Noise()),
        ),
    ],
    ids=["trades", "pairing", "awp", "free"],
)
def test_at_the_end_of_its_range_it_is_another_method(special, general):
    assert same(train(special), train(general))


def test_the_boost_of_mart_doubles_the_cross_entropy_of_two_classes():
    data = some(2)
    trainer = MART(MLP((6,)), inner=Up(), weight=0.0)
    module, step = begun(trainer, data)
    expected = 2 * cross_entropy(module(trainer.moved(module, step)), data.y)
    torch.testing.assert_close(trainer.loss(module, step), expected)


# --- the inner move -------------------------------------------------------------------------


def test_trades_looks_for_the_farthest_answer():
    """Closed form: the divergence of a linear model of two classes grows along +-(w_1 - w_0)."""
    data = some(2)
    trainer = TRADES(LINEAR, steps=10, step=0.5)
    for space in (Linf(0.1), L2(0.1)):
        module, step = begun(trainer, data, space)
        w = module[1].weight[1] - module[1].weight[0]
        way = space.eps * space.steepest(w[None]).detach()
        moved = trainer.moved(module, step) - data.x
        side = (moved @ w.detach()).sign()[:, None]
        torch.testing.assert_close(moved, side * way, atol=1e-3, rtol=0)
        assert set(side.flatten().tolist()) == {-1.0, 1.0}, "the noise decides which"


@every_space
def test_what_trades_finds_is_legal_and_worse_than_noise(space):
    data = some(3)
    trainer = TRADES(MLP((6,)), steps=5)
    module, step = begun(trainer, data, space)
    moved = trainer.moved(module, step)
    assert space.contains(data.x, moved).all()
    noise = space.sample(data.x, chance.keys(5, len(data)))
    apart = [divergence(module(data.x), module(x)).mean() for x in (moved, noise)]
    assert apart[0] > apart[1]


@pytest.mark.parametrize("name", ["trades", "mart", "pairing", "awp", "fast", "ensemble"])
def test_the_inner_loop_sees_a_frozen_module_and_leaves_no_gradient(name):
    data, trainer = some(2), TRAINERS[name]
    module, step = begun(trainer, data, prepared=())
    states = []
    module.register_forward_hook(
        lambda m, *_: states.append((m.training, any(p.requires_grad for p in m.parameters())))
    )
    trainer.moved(module, step)
    assert states and set(states) == {(False, False)}
    assert module.training
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_what_was_frozen_before_stays_so():
    module = MLP((3,)).build((2,), 2, 0).eval()
    module[1].requires_grad_(False)
    with pytest.raises(KeyError), frozen(module):
        assert not any(p.requires_grad for p in module.parameters())
        raise KeyError
    assert not module.training
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]


# --- training -------------------------------------------------------------------------------


@every_trainer
def test_training_is_a_function_of_the_seed(trainer):
    model = train(trainer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert same(train(trainer), model)
    assert not same(train(trainer, seed=4), model)


@every_trainer
def test_a_broken_training_goes_on_to_the_same_bits(trainer, tmp_path, monkeypatch):
    data = separable(100)  # four steps an epoch
    whole, update, calls = train(trainer), type(trainer).update, []

    def breaking(self, module, optimizer, step):
        calls.append(step.seed)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return update(self, module, optimizer, step)

    monkeypatch.setattr(type(trainer), "update", breaking)
    store = partial(trainer.train, data, 3, task_of(data), store=Store(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        store()
    assert same(store(), whole)
    assert len(calls) == 6 + 4, "the first epoch is not trained again"


@every_space
@every_trainer
def test_every_geometry_can_be_trained_against(trainer, space):
    assert not same(train(trainer, space=space), train(ERM(**SMALL)))


@dataclass(frozen=True)
class Anything(ActionSpace):
    """Actions without a geometry."""

    def contains(self, given, output):
        return torch.ones(len(given), dtype=torch.bool)

    def sample(self, given, key):
        return given


@pytest.mark.parametrize("name", ["trades", "free"])
def test_actions_without_a_geometry_are_refused_before_the_first_step(name):
    said = rf"{type(TRAINERS[name]).__name__} perturbs inputs .* actions=Anything; use .*=linf, l2,"
    with pytest.raises(ValueError, match=said):
        train(TRAINERS[name], space=Anything())
    with pytest.raises(ValueError, match=r"needs knowledge\.task"):
        TRAINERS[name].train(separable(20), 0)


ROBUST = {"learner": LINEAR, "epochs": 15, "batch_size": 100, "lr": 0.2}


@pytest.mark.parametrize(
    "trainer",
    [
        TRADES(**ROBUST, steps=3, step=0.7),
        MART(**ROBUST, inner=PGD(3, 0.7, returns="last")),
        AdversarialWeightPerturbation(**ROBUST, inner=PGD(3, 0.7, returns="last")),
        AdversarialTraining(**ROBUST, inner=FGSM(1.25, random_start=True)),
        FreeAdversarialTraining(**ROBUST | {"epochs": 5}, replays=3),
    ],
    ids=["trades", "mart", "awp", "fast", "free"],
)
def test_features_that_an_attacker_owns_are_given_up(trainer):
    """The closed form of test_defenses: errors on the lies, one in ten, where ERM is at 1/2 more.

    On a linear model one step is the whole inner maximum: single-step training is as good here.
    """
    data, test = two_kinds_of_features(1000, 0), two_kinds_of_features(600, 50)
    robust = train(trainer, data, seed=0)
    assert error(robust, test) < 0.15
    assert 0.05 < pgd_error(robust, test) < 0.15
    assert pgd_error(ERM(**ROBUST).train(data, 0), test) > pgd_error(robust, test) + 0.5
