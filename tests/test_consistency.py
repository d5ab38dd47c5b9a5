"""A model that is given must be a function of its input: the same in any batch and any call."""

import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from small import attacker, defender, evasion, last
from torch import nn
from torch.nn.functional import dropout

from arena.actions.decisions import ClassOrRefusal
from arena.attacks.honest import Honest
from arena.core import IllegalMove
from arena.data.digits import Digits
from arena.defenses.fixed import Fixed
from arena.defenses.refusing import Refusing
from arena.learners.networks import CNN, MLP
from arena.learners.preprocessing import Preprocessed
from arena.learners.wide_resnet import WideResNet
from arena.training.classifiers import FunctionClassifier, classifier
from arena.training.consistency import check_consistent
from arena.transformations.gaussian_noise import GaussianNoise

DIGITS, _ = Digits().load()
X = DIGITS.x[:40]
NETWORK = MLP((16,)).build((1, 8, 8), 10, seed=0)


class AlwaysDropping(nn.Module):
    """Dropout by the function, which asks no module whether it is in training."""

    def __init__(self):
        super().__init__()
        self.inner = NETWORK

    def forward(self, x):
        return self.inner(dropout(x, 0.5))


class NormalisedByBatch(nn.Module):
    """Subtracts the mean of the batch: one input alone is all zeros."""

    def __init__(self):
        super().__init__()
        self.inner = NETWORK

    def forward(self, x):
        return self.inner(x - x.mean(0))


class Ranked(nn.Module):
    """Adds to the logits by the input's place in the batch."""

    def __init__(self):
        super().__init__()
        self.inner = NETWORK

    def forward(self, x):
        return self.inner(x) + torch.linspace(0, 1, len(x))[:, None] * torch.arange(10)


def noisy_scores(x):
    return NETWORK(x).detach().numpy() + np.random.default_rng().normal(0, 0.1, (len(x), 10))


def noisy_labels(x):
    return np.random.default_rng().integers(0, 10, len(x))


def counting():
    """A function whose answer depends on how often it was called."""
    calls = iter(range(1000))
    return lambda x: torch.full((len(x),), next(calls) % 10)


BATCHED = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), NETWORK)

INCONSISTENT = {
    "dropout": (AlwaysDropping(), "labels", "in reverse order"),
    "batch mean": (NormalisedByBatch(), "labels", "one at a time"),
    "place in the batch": (Ranked(), "labels", "in reverse order"),
    "noisy scores": (noisy_scores, "scores", "in reverse order"),
    "noisy labels": (noisy_labels, "labels", "in reverse order"),
    "state": (counting(), "labels", "in reverse order"),
}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_an_answer_that_depends_on_more_than_the_input_is_refused_before_the_attacker_moves(name):
    model, answers, how = INCONSISTENT[name]
    moved = []

    class Watched(Honest):
        def respond(self, turn):
            moved.append(turn)
            return super().respond(turn)

    with (
        torch.random.fork_rng(devices=[]),
        pytest.raises(ValueError, match=rf"input \d+ .* {how}") as refusal,
    ):
        last(evasion(attacker(Watched()), defender(Fixed(model, answers=answers))))
    assert not moved
    assert "declare it random (a module with `random = True` and forward(x, key))" in str(
        refusal.value
    )
    assert "mend it (eval(), no batch statistics)" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 2


def test_a_model_that_cannot_answer_one_input_alone_is_told_so():
    with pytest.raises(ValueError, match=r"cannot answer input 0 .* alone: Expected more than 1"):
        check_consistent(classifier(BATCHED, 10, "labels"), X)


@pytest.mark.parametrize(
    "model",
    [
        NETWORK,
        CNN((4, 4)).build((1, 8, 8), 10, seed=0),
        WideResNet(10, 1).build((1, 8, 8), 10, seed=0),
    ],
    ids=["mlp", "cnn", "wide resnet"],
)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rounding_is_no_inconsistency(model, scale):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x) * scale

    check_consistent(classifier(Scaled(), 10, "labels"), X)


def test_coarser_arithmetic_is_allowed_its_own_rounding():
    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = MLP((16,)).build((1, 8, 8), 10, seed=0).bfloat16()

        def forward(self, x):
            return self.inner(x.bfloat16())

    check_consistent(classifier(Coarse(), 10, "labels"), X)


@pytest.mark.parametrize("estimator", [LogisticRegression(max_iter=500), RandomForestClassifier(9)])
def test_estimators_are_consistent(estimator):
    fitted = estimator.fit(X.flatten(1).numpy(), DIGITS.y[:40].numpy())
    check_consistent(classifier(fitted, 10, "labels"), X)


def test_log_probabilities_of_zero_hide_no_change_of_the_others():
    # -80 stands for log 0. As a share of 80, the step from .6 to .5 would pass for rounding.
    probabilities = iter([0.6, 0.5])

    def shares(x):
        scores = np.full((len(x), 3), -80.0)
        scores[:, 0] = math.log(p := next(probabilities))
        scores[:, 1] = math.log(1 - p)
        return scores

    with pytest.raises(ValueError, match=r"scores differ by 0\.223"):  # log(.5 / .4)
        check_consistent(FunctionClassifier(shares, 3, "scores"), X)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_same_broken_answer_is_consistent_and_another_is_not(value):
    def broken(x):
        return torch.full((len(x), 3), value)

    check_consistent(FunctionClassifier(broken, 3, "scores"), X)
    calls = iter([broken, lambda x: torch.zeros(len(x), 3)])
    with pytest.raises(ValueError, match="differently"):
        check_consistent(FunctionClassifier(lambda x: next(calls)(x), 3, "scores"), X)


def test_a_model_that_says_it_is_random_is_not_asked():
    noisy = Fixed(Preprocessed(GaussianNoise(0.5), NETWORK))
    record = last(evasion(attacker(Honest()), defender(noisy)))
    assert record.metrics["clean_error"] > 0


class Returning(nn.Module):
    """Returns something else than logits."""

    def __init__(self, returned, random=False):
        super().__init__()
        self.returned = returned
        self.random = random

    def forward(self, x, key=None):
        return self.returned(x)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (lambda x: x.new_zeros(len(x), 9), r"shape \[16, 9\]"),
        (lambda x: x.new_zeros(len(x), 12), r"shape \[16, 12\]"),
        (lambda x: x.new_zeros(len(x)), r"shape \[16\]"),
        (lambda x: x.new_zeros(1, 10), r"shape \[1, 10\]"),
        (lambda x: x.new_zeros(len(x), 10, 2), r"shape \[16, 10, 2\]"),
        (lambda x: (x.new_zeros(len(x), 10), x), "a tuple"),
    ],
)
def test_a_module_that_returns_no_logits_is_told_what_to_return(returned, found, random):
    with pytest.raises(ValueError, match=rf"the Returning gave {found} for 16 inputs") as e:
        last(evasion(attacker(Honest()), defender(Fixed(Returning(returned, random)))))
    assert "return [B, 10], or [B, 11] if the last column refuses" in str(e.value)


@pytest.mark.parametrize("columns", [10, 11])
def test_a_column_for_each_class_and_one_for_a_refusal_are_allowed(columns):
    model = Returning(lambda x: x.new_zeros(len(x), columns))
    last(evasion(attacker(Honest()), defender(Fixed(model))))


def test_a_few_inputs_are_asked_and_only_in_the_first_round():
    rows = []

    def counted(x):
        rows.append(len(x))
        return torch.zeros(len(x), dtype=torch.int64)

    arena = evasion(attacker(Honest()), defender(Fixed(counted)), examples=20)
    next(arena.play(1))
    assert sum(rows) < 3 * 16 + 16 + 3 * 20
    assert rows[:2] == [16, 16] and rows[2:18] == [1] * 16
    rows.clear()
    *_, _record = arena.play(2)
    assert 1 not in rows


def test_a_refusal_is_refused_before_the_attacker_moves_where_refusing_is_not_allowed():
    def sure(x):
        return torch.where(x.flatten(1).mean(1) > 0.3, 3, -1)

    with pytest.raises(IllegalMove, match=r"input \d+ .* with -1: it refuses, but its actions are"):
        last(evasion(attacker(Honest()), defender(Fixed(sure))))
    allowed = defender(Fixed(sure), actions=ClassOrRefusal())
    assert last(evasion(attacker(Honest()), allowed)).metrics["refused"] > 0


def test_what_stands_around_a_given_model_asks_it_too():
    with (
        torch.random.fork_rng(devices=[]),
        pytest.raises(ValueError, match="differently"),
    ):
        last(
            evasion(
                attacker(Honest()),
                defender(Refusing(Fixed(AlwaysDropping())), actions=ClassOrRefusal()),
            )
        )
