"""Trainings that minimise a bound: what they minimise, and what they end in."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from arena import chance
from arena.actions.lp import L0, L1, L2, Linf
from arena.certificates.crown import Crown
from arena.certificates.interval import Interval
from arena.certificates.polytope import ConvexPolytope
from arena.core import Labelled, Task
from arena.costs import ErrorRate, Negation
from arena.data.digits import Digits
from arena.defenses.erm import ERM
from arena.defenses.interval_training import IntervalTraining, bounded_loss
from arena.defenses.polytope_training import PolytopeTraining
from arena.learners.networks import CNN, MLP
from arena.training.trainer import Step

TRAINERS = [
    IntervalTraining(MLP((20,)), epochs=12, batch_size=64, lr=0.01),
    PolytopeTraining(MLP((20,)), epochs=8, batch_size=64, lr=0.01),
]
SPACE = Linf(0.1)


def task_of(data, space=SPACE):
    return Task(data.shape, data.classes, data.box, space, Negation(ErrorRate()))


@pytest.fixture(scope="module")
def digits():
    every, _ = Digits().load()
    return every[:600], every[-200:]


def certified(model, data, bound):
    found = bound.certified(model.module, data.x, data.y, SPACE, 100)
    return float(found.double().mean())


@pytest.mark.parametrize("bound", [Interval(), ConvexPolytope(), Crown()], ids=str)
@pytest.mark.parametrize("space", [Linf(0.1), L2(0.5), L1(1.0)], ids=lambda s: type(s).__name__)
def test_the_bounded_loss_is_at_least_that_of_legal_outputs(bound, space, digits):
    data = digits[1][:20]
    module = CNN((4,), 10).build(data.shape, 10, 0)
    bounded = bounded_loss(bound, module, Step(data, 0), task_of(data, space))
    for draw in range(5):
        z = space.sample(data.x, chance.keys(draw, len(data)))
        assert cross_entropy(module(z), data.y) <= bounded + 1e-5


@pytest.mark.parametrize("bound", [Interval(), ConvexPolytope(), Crown()], ids=str)
@pytest.mark.parametrize("space", [Linf(0.1), L2(0.5)], ids=lambda s: type(s).__name__)
def test_the_gradient_is_that_of_the_bound(bound, space, digits):
    """Against central differences in float64, along a random direction of all parameters."""
    data = digits[1][:3]
    module = CNN((3,), 6).build(data.shape, 10, 0).double()
    x, step = data.x.double(), 1e-6

    def value(of):
        margins = bound.margins(of, x, data.y, space)
        return margins[~margins.isinf()].sum()

    parameters = list(module.parameters())
    gradients = torch.autograd.grad(value(module), parameters)
    generator = torch.Generator().manual_seed(1)
    ways = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum(float((g * way).sum()) for g, way in zip(gradients, ways, strict=True))
    moved = []
    for sign in (1, -1):
        other = copy.deepcopy(module).requires_grad_(False)
        for p, way in zip(other.parameters(), ways, strict=True):
            p += sign * step * way
        moved.append(float(value(other)))
    assert slope == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-4)


def test_on_a_linear_model_the_losses_are_known():
    """The worst logits of a linear model are x w minus eps |w_y - w_k|_1, away from the box."""
    x = 0.5 + torch.zeros(6, 3)
    data = Labelled(x, torch.arange(6) % 3, 3)
    module = MLP(()).build((3,), 3, 0)
    clean = cross_entropy(module(x), data.y)
    weight = module[1].weight
    apart = (weight[data.y][:, None] - weight).abs().sum(2)

    def worst(eps):
        return cross_entropy(module(x) + eps * apart, data.y)

    interval, polytope = IntervalTraining(MLP(()), kappa=0.2), PolytopeTraining(MLP(()), ramp=0.4)
    for progress, kappa, share in ((0.0, 1.0, 0.0), (0.25, 0.6, 0.5), (0.5, 0.2, 1), (0.9, 0.2, 1)):
        step = Step(data, 0, progress, task_of(data))
        expected = kappa * clean + (1 - kappa) * worst(share * 0.1)
        torch.testing.assert_close(interval.loss(module, step), expected, rtol=1e-5, atol=1e-6)
        share = min(progress / 0.4, 1.0)
        found = polytope.loss(module, step)
        torch.testing.assert_close(found, worst(share * 0.1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda t: type(t).__name__)
def test_what_was_trained_on_a_bound_is_certified(trainer, digits):
    train, test = digits
    plain = ERM(trainer.learner, epochs=trainer.epochs, batch_size=64, lr=0.01).train(train, 0)
    model = trainer.train(train, 0, task_of(train))
    bound = Interval() if isinstance(trainer, IntervalTraining) else ConvexPolytope()
    # Three standard errors of a difference between shares of 200.
    assert certified(plain, test, bound) + 0.1 < certified(model, test, bound)
    assert certified(model, test, Interval()) <= certified(model, test, Crown())


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda t: type(t).__name__)
def test_training_is_a_function_of_the_seed(trainer, digits):
    data, short = digits[0][:64], replace(trainer, epochs=2)
    first, again = (short.train(data, 3, task_of(data)).state() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda t: type(t).__name__)
def test_what_has_no_bounds_is_refused(trainer, digits):
    data = digits[0][:64]
    with pytest.raises(ValueError, match="no bounds over L0; they cover"):
        trainer.train(data, 0, task_of(data, L0(3)))
    with pytest.raises(ValueError, match=f"{type(trainer).__name__} needs knowledge.task"):
        trainer.train(data, 0)
