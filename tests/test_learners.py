"""Networks, and how a model of any make becomes a defender's move."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import nn

from arena.classification import Classifier, decide
from arena.knowledge import INVALID, REFUSED, LabelView, ScoreView, WhiteBox
from arena.learners.networks import CNN, MLP
from arena.training.classifiers import (
    FunctionClassifier,
    ModuleClassifier,
    classifier,
    from_estimator,
)

SHAPE = (2, 9, 8)


def inputs(n=5, shape=SHAPE, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


# --- networks -------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 6), max_size=3),
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_an_mlp_has_a_weight_per_pair_of_units(hidden, shape, classes):
    module = MLP(tuple(hidden)).build(tuple(shape), classes, seed=0)
    assert module(inputs(4, tuple(shape))).shape == (4, classes)
    widths = [int(np.prod(shape)), *hidden, classes]
    expected = sum((a + 1) * b for a, b in pairwise(widths))
    assert sum(p.numel() for p in module.parameters()) == expected
    assert sum(isinstance(m, nn.ReLU) for m in module) == len(hidden)


def test_an_mlp_without_hidden_layers_is_linear():
    module = MLP([]).build(SHAPE, 3, seed=0)
    a, b = inputs(4), inputs(4, seed=1)
    torch.testing.assert_close(module((a + b) / 2), (module(a) + module(b)) / 2)


@pytest.mark.parametrize("channels", [(), (3,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 15)])
def test_a_cnn_halves_once_per_entry(channels, shape):
    module = CNN(channels, hidden=5).build(shape, 4, seed=0)
    assert module(inputs(2, shape)).shape == (2, 4)
    widths = [shape[0], *channels]
    flat = widths[-1] * (shape[1] // 2 ** len(channels)) * (shape[2] // 2 ** len(channels))
    expected = sum((9 * a + 1) * b for a, b in pairwise(widths))
    expected += (flat + 1) * 5 + (5 + 1) * 4
    assert sum(p.numel() for p in module.parameters()) == expected


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 7, 8), (1, 8, 7), (1, 2, 3, 4)])
def test_a_cnn_needs_images_that_are_large_enough(shape):
    with pytest.raises(ValueError) as caught:
        CNN((4, 4, 4)).build(shape, 10, seed=0)
    assert f"3 halvings cannot take inputs of shape {list(shape)}; use learner=mlp" in str(
        caught.value
    )


def test_widths_are_at_least_one():
    for make in (lambda: MLP((0,)), lambda: CNN((0,)), lambda: CNN(hidden=0)):
        with pytest.raises(ValueError, match="at least 1"):
            make()


def parameters(module):
    return torch.cat([p.flatten() for p in module.parameters()])


@pytest.mark.parametrize("learner", [MLP((7,)), CNN((3,), 5)], ids=str)
def test_the_seed_alone_decides_the_initial_parameters(learner):
    first = parameters(learner.build(SHAPE, 4, seed=1))
    before = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):  # the suite forbids to move the global generator
        torch.manual_seed(99)
        again = parameters(learner.build(SHAPE, 4, seed=1))
    assert torch.equal(first, again)
    assert not torch.equal(first, parameters(learner.build(SHAPE, 4, seed=2)))
    learner.build(SHAPE, 4, seed=(1 << 63) - 1)
    assert torch.equal(before, torch.get_rng_state())


def test_building_on_the_cpu_leaves_the_generators_of_accelerators_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    MLP().build((4,), 2, seed=0)
    assert seeded == []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
    assert seeded == [0]  # what the above would have seen


# --- decisions ------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("logits", "classes", "label"),
    [
        ([0.0, 2.0, 1.0], 3, 1),
        ([0.0, 2.0, 3.0], 2, REFUSED),
        ([0.0, 2.0, 1.0], 2, 1),
        ([NAN, 2.0, 1.0], 3, INVALID),
        ([0.0, 2.0, NAN], 2, INVALID),
        ([0.0, INF, 1.0], 3, INVALID),
        ([0.0, -INF, 1.0], 3, 2),  # log 0
        ([-INF, -INF, -INF], 3, INVALID),
    ],
)
def test_labels_of_logits(logits, classes, label):
    both = torch.tensor([logits, [1.0, 0.0, 0.0]])
    assert decide(both, classes).tolist() == [label, 0]
    answer = FunctionClassifier(lambda x: both, classes, "scores").answer(torch.zeros(2, 1))
    assert answer.labels.tolist() == [label, 0]


class Scripted(nn.Module):
    """Puts out its one input row's entries times a parameter, with dropout in training."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.tensor(3))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.scale * x)


def test_a_module_is_frozen_in_evaluation_mode_but_differentiable_in_its_input():
    module = Scripted().train()
    model = ModuleClassifier(module, 3)
    assert model.module is module
    assert not module.training and not module.scale.requires_grad
    x = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    assert torch.equal(model.logits(x), x)  # nothing is dropped
    (slope,) = torch.autograd.grad(model.logits(x)[0, 2], x)
    assert slope.tolist() == [[0.0, 0.0, 1.0]]
    assert module.scale.grad is None
    assert model.widest is WhiteBox
    assert set(model.state()) == {"scale", "seen"}


class Viewing(nn.Module):
    """Calls `view` on what a convolution returns, as many published models do."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4 * 7 * 6, 3)

    def forward(self, x):
        return self.head(self.conv(x).view(len(x), -1))


@pytest.mark.parametrize("module", [CNN((4, 4)).build(SHAPE, 3, 0), Viewing()], ids=["cnn", "view"])
def test_many_inputs_get_the_logits_and_gradients_of_one_pass(module):
    x = inputs(300).requires_grad_()
    expected = module(x)
    (slope,) = torch.autograd.grad(expected.square().sum(), x)
    found = ModuleClassifier(module, 3).logits(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], slope)


def test_what_a_module_itself_raises_is_not_hidden():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ModuleClassifier(CNN((4, 4)).build(SHAPE, 3, 0), 3).logits(inputs(shape=(2, 16, 16)))


def test_an_answer_is_a_label_with_log_probabilities_and_no_graph():
    x = torch.tensor([[0.0, 1.0, 2.0], [5.0, 1.0, NAN], [0.0, 4.0, 1.0]], requires_grad=True)
    answer = ModuleClassifier(Scripted(), 2).answer(x)  # the third column refuses
    assert answer.labels.tolist() == [REFUSED, INVALID, 1]
    assert not answer.scores.requires_grad
    torch.testing.assert_close(answer.scores[0], x[0].log_softmax(0))
    assert answer[torch.tensor([2])].labels.tolist() == [1]


# --- functions ------------------------------------------------------------------------------


def bright(x):
    return (x.flatten(1).mean(1) > 0.5).long()


@pytest.mark.parametrize("convert", [lambda t: t, lambda t: t.numpy(), lambda t: t.tolist()])
def test_a_function_that_labels(convert):
    model = FunctionClassifier(lambda x: convert(bright(x)), 3, "labels")
    x = inputs(6)
    assert torch.equal(model.labels(x), bright(x))
    assert model.labels(x).dtype == torch.int64
    assert torch.equal(model.answer(x).labels, bright(x))
    assert torch.equal(decide(model.logits(x), 3), bright(x))
    assert model.logits(x).isfinite().all()
    assert model.widest is LabelView and model.state() == {}
    with pytest.raises(PermissionError, match="FunctionClassifier has no module"):
        _ = model.module


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.float32, np.float64])
def test_what_a_labelling_function_says_is_what_is_scored(kind):
    said = [REFUSED, 1, 2, 0]
    model = FunctionClassifier(lambda x: np.array(said, kind), 3, "labels")
    x = torch.zeros(4, 1)
    assert model.answer(x).labels.tolist() == model.labels(x).tolist() == said


@pytest.mark.parametrize("label", [2.9, 0.5, -0.1, 3, 99, INVALID, -3, NAN, INF])
def test_a_label_that_is_no_class_is_refused_by_the_number_of_its_input(label):
    model = FunctionClassifier(lambda x: [0, 2, label, 1], 3, "labels")
    for ask in (model.labels, model.logits, model.answer):
        with pytest.raises(ValueError, match=r"input 2 of 4 .*; return a class in 0\.\.2") as e:
            ask(torch.zeros(4, 1))
        assert f"label {label:g}" in str(e.value)


@pytest.mark.parametrize("returned", [None, ["a", "b", "c"], [[0], [1, 2], [3]]])
def test_an_answer_that_is_no_array_of_numbers_is_refused(returned):
    model = FunctionClassifier(lambda x: returned, 3, "labels")
    with pytest.raises(ValueError, match=r"returned a (NoneType|list), .* return \[B\] labels"):
        model.labels(torch.zeros(3, 1))


@pytest.mark.parametrize("columns", [1, 2, 5, 30])
def test_a_function_with_too_few_or_too_many_columns_is_refused(columns):
    # Classes 0..2: three columns, or four of which the last refuses.
    model = FunctionClassifier(lambda x: np.zeros((len(x), columns)), 3, "scores")
    for ask in (model.labels, model.logits, model.answer):
        with pytest.raises(ValueError, match=rf"function gave shape \[6, {columns}\] for 6") as e:
            ask(torch.zeros(6, 1))
        assert "return [B, 3], or [B, 4] if the last column refuses" in str(e.value)


# --- estimators -----------------------------------------------------------------------------


def blobs(labels, seed=0):
    """Images whose first pixel row tells the label."""
    y = np.repeat(labels, 12)
    x = inputs(len(y), (1, 2, 4), seed) * 0.2
    for i, label in enumerate(y):
        x[i, 0, 0, labels.index(int(label))] += 0.8
    return x, y


LABELS = [0, 1, 2, 3]


def fitted(estimator, labels=LABELS):
    x, y = blobs(labels)
    return estimator.fit(x.flatten(1).numpy(), y), x, torch.as_tensor(y)


def test_an_estimator_with_probabilities_scores():
    estimator, x, y = fitted(LogisticRegression(C=100.0))
    model = from_estimator(estimator, 4)
    assert model.widest is ScoreView and model.classes == 4
    assert torch.equal(model.labels(x), y)
    probabilities = torch.from_numpy(estimator.predict_proba(x.flatten(1).numpy())).float()
    torch.testing.assert_close(model.answer(x).scores.exp(), probabilities, rtol=1e-5, atol=1e-6)


def test_an_estimator_without_probabilities_labels():
    estimator, x, y = fitted(LinearSVC(C=100.0))
    model = from_estimator(estimator, 4)
    assert model.widest is LabelView
    assert torch.equal(model.labels(x), y) and torch.equal(model.answer(x).labels, y)


@pytest.mark.parametrize("estimator", [LogisticRegression(C=100.0), LinearSVC(C=100.0)])
def test_an_estimator_that_knows_some_of_the_classes_keeps_their_names(estimator):
    known = [5, 1, 8]
    estimator, x, y = fitted(estimator, known)
    model = from_estimator(estimator, 10)
    assert torch.equal(model.labels(x), y)
    answer = model.answer(x)
    assert torch.equal(answer.labels, y)
    logits = model.logits(x)
    assert logits.shape == (len(x), 10) and logits.isfinite().all()
    unknown = [k for k in range(10) if k not in known]
    assert logits.softmax(1)[:, unknown].max() < 1e-30
    if model.widest is ScoreView:
        torch.testing.assert_close(answer.scores.exp().sum(1), torch.ones(len(x)))


def test_a_probability_of_zero_keeps_scores_finite():
    class Certain:
        classes_ = np.array([0, 1])

        def predict_proba(self, x):
            return np.tile([1.0, 0.0], (len(x), 1))

    scores = from_estimator(Certain(), 2).answer(torch.zeros(3, 1)).scores
    assert scores.isfinite().all() and scores[:, 0].eq(0).all() and (scores[:, 1] < -70).all()


def test_estimators_see_flat_float32():
    class Spy:
        classes_ = np.array([0, 1])

        def predict(self, x):
            assert isinstance(x, np.ndarray) and x.dtype == np.float32 and x.shape == (5, 144)
            return np.zeros(5, dtype=int)

    assert from_estimator(Spy(), 2).labels(inputs()).tolist() == [0] * 5


@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearSVC()])
def test_an_estimator_that_is_not_fitted_cannot_play(estimator):
    with pytest.raises(ValueError, match=f"{type(estimator).__name__} has no classes_: fit it"):
        classifier(estimator, 4, "labels")


@pytest.mark.parametrize("known", [[0, 4], [-1, 0], ["a", "b"], [0.0, 1.0]])
def test_an_estimators_classes_must_be_the_games(known):
    estimator = LogisticRegression().fit([[0.0], [1.0]], known)
    with pytest.raises(ValueError, match=r"knows classes .* fit it on labels 0\.\.3"):
        from_estimator(estimator, 4)


# --- whatever it is -------------------------------------------------------------------------


def test_each_model_becomes_its_kind_of_classifier():
    module = MLP([]).build((2,), 3, seed=0)
    made = classifier(module, 3, "labels")
    assert isinstance(made, ModuleClassifier)
    assert made.module is not module and module.training and module[1].weight.requires_grad
    assert classifier(made, 3, "labels") is made
    assert classifier(bright, 3, "labels").widest is LabelView
    assert classifier(bright, 3, "scores").widest is ScoreView
    estimator, *_ = fitted(LogisticRegression())
    assert classifier(estimator, 4, "labels").widest is ScoreView
    assert all(isinstance(m, Classifier) for m in (made, classifier(bright, 3, "labels")))


@pytest.mark.parametrize("model", [3, "model.pt", None, {"a": 1}])
def test_what_is_no_model_cannot_play(model):
    with pytest.raises(ValueError, match=f"cannot play a {type(model).__name__}; give a torch"):
        classifier(model, 3, "labels")
