"""Adversaries before neural nets: optimal moves against brute force, and the papers' stories.

Dalvi et al. 2004 (changes at a price, naive Bayes) and Globerson & Roweis 2006 (deletions, FDROP).
"""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from published import MNIST_FOLDER, there
from scipy.optimize import minimize
from sklearn.naive_bayes import BernoulliNB
from sklearn.svm import LinearSVC
from small import ORDERS, Constant, seen, turn_on

from arena import Arena, Knowledge, Labelled, Player, Turn
from arena.actions.decisions import Confidence
from arena.actions.deletions import Deletions
from arena.actions.features import FeatureChanges
from arena.actions.lp import Linf
from arena.attacks.honest import Honest
from arena.attacks.minimum_cost_camouflage import MinimumCostCamouflage, cheapest
from arena.attacks.worst_deletion import WorstDeletion
from arena.core import IllegalMove, Task
from arena.costs import CostMatrix, ErrorRate, MovePrice, Negation, Refusal
from arena.data.given import Given
from arena.data.mnist import MNIST
from arena.data.subset import Subset
from arena.data.tabular import Tabular
from arena.defenses.adversary_aware_bayes import AdversaryAwareBayes, AwareRule
from arena.defenses.feature_deletion import FeatureDeletion
from arena.defenses.fixed import Fixed
from arena.defenses.naive_bayes import NaiveBayes
from arena.games.evasion import Evasion
from arena.knowledge import View
from arena.learners.networks import MLP
from arena.training.classifiers import ModuleClassifier
from arena.training.cutting_plane import Unsolved, minimum

ERROR = Negation(ErrorRate())
SPAM_PASSES = CostMatrix(((0, 0), (0, 1)))


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def keys(n):
    return torch.arange(n) * 7919


def linear(weight, bias):
    """A linear classifier with these logits."""
    module = torch.nn.Linear(*reversed(weight.shape), device="meta")
    module.weight, module.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    return ModuleClassifier(torch.nn.Sequential(torch.nn.Flatten(), module), len(weight))


def some_linear(classes, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, n, generator=generator)
    # The boundary near the middle of the box, so that some inputs are on either side.
    return linear(weight, -weight.sum(1) / 2 + 0.1 * torch.randn(classes, generator=generator))


def some_data(b, n, classes=2, seed=0, binary=True):
    x = drawn(b, n, seed=seed)
    y = (drawn(b, seed=seed + 1) * classes).long()
    return Labelled((x > 0.5).float() if binary else x, y, classes)


def attacked(strategy, model, data, actions, cost, batch_size=64):
    turn = turn_on(seen(model, data), strategy, data, actions, cost, batch_size=batch_size)
    strategy.check(turn.player)
    return strategy.respond(turn)


def defend(strategy, data, task=None, cost=None):
    """The move of a defender dealt `data`, against attackers of whom it knows `task`."""
    player = Player(Confidence(data.classes), cost or ErrorRate(), Knowledge(), strategy)
    view = View("attacker", Knowledge(), {"task": task})
    strategy.check(player)
    return strategy.respond(Turn(player, 0, data, None, None, 0, 64, lambda name, kind: view))


def task_of(data, actions, cost):
    return Task(data.shape, data.classes, data.box, actions, cost)


# --- changes at a price, deletions: the spaces --------------------------------------------------


CHANGES = [
    FeatureChanges(3, 1),
    FeatureChanges(4, (1, 2, 3, 4, 5), "up"),
    FeatureChanges(4, (5, 4, 3, 2, 1), "down", None),
    FeatureChanges(0),
]


@pytest.mark.parametrize("space", [*CHANGES, Deletions(0), Deletions(2), Deletions(9)], ids=str)
def test_samples_are_legal_and_different(space):
    x = torch.cat([some_data(30, 5).x, some_data(30, 5, binary=False).x])
    output = space.sample(x, keys(60))
    assert space.contains(x, output).all() and space.contains(x, x).all()
    nothing = space in (FeatureChanges(0), Deletions(0))
    assert nothing == torch.equal(output, x)
    assert not space.contains(x, output[:, :4]).any()


def test_what_changes_may_be_made_and_at_what_price():
    space = FeatureChanges(budget=4, prices=(1, 2, 3), direction="up", of_class=1)
    given_ = torch.tensor([[0.0, 0.5, 0.0]]).repeat(6, 1)
    output = torch.tensor(
        [
            [1.0, 0.5, 0.0],  # price 1
            [1.0, 0.5, 1.0],  # price 4: just the budget
            [0.0, 1.0, 1.0],  # price 5
            [0.0, 0.0, 0.0],  # falls
            [0.5, 0.5, 0.0],  # not to an end
            [0.0, 0.5, 0.0],  # unchanged
        ]
    )
    legal = [True, True, False, False, False, True]
    assert space.contains(given_, output).tolist() == legal
    data = Labelled(given_, torch.tensor([1, 0, 1, 1, 1, 0]), 2)
    assert space.permits(data, output).tolist() == [True, False, False, False, False, True]
    assert space.price(data, output).tolist() == [1, 4, 5, 2, 1, 0]
    for row, why in (
        (2, "its changes cost 5, budget 4"),
        (3, r"feature 1 went from 0\.5 to 0; a change goes to an end .* direction up"),
        (4, r"feature 0 went from 0 to 0\.5"),
        (1, "only inputs of class 1 may be"),
    ):
        assert re.search(why, space.explain(given_[row : row + 1], output[row : row + 1]))


def test_what_deletions_may_be_made():
    space = Deletions(1)
    given_ = torch.tensor([[0.5, 0.0, 1.0]]).repeat(4, 1)
    output = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.25, 0.0, 1.0], [0.5, 1.0, 1.0]])
    assert space.contains(given_, output).tolist() == [True, False, False, False]
    assert space.explain(given_[1:2], output[1:2]) == "2 features are deleted, k 1"
    assert space.explain(given_[2:3], output[2:3]) == "feature 0 became 0.25; a deletion makes it 0"


class Everyone(Honest):
    """Flips the first feature of everybody."""

    def respond(self, turn):
        return torch.cat([1 - turn.data.x[:, :1], turn.data.x[:, 1:]], 1)


def game(attack, defense, actions, cost, data=None, seed=0, defender_cost=None, **options):
    options = {"examples": 40, "attacker_share": 0.0, "test_share": 0.5} | options
    source = Given(data) if isinstance(data, Labelled) else data
    players = {
        "attacker": Player(actions, cost, Knowledge.white_box(), attack),
        "defender": Player(Confidence(2), defender_cost or ErrorRate(), Knowledge(), defense),
    }
    return Arena(Evasion(source, **options), players, ORDERS["defender_first"], seed)


def test_the_game_refuses_changes_of_the_other_class_and_charges_for_changes():
    data, space = some_data(200, 4), FeatureChanges(5, 3, of_class=None)
    price = MovePrice(SPAM_PASSES, 0.5)
    model = Fixed(Constant([0.0, 1.0]), classes=2)  # never lets spam pass
    (record,) = game(Everyone(), model, space, price, data).play(1)
    spam = (-record.costs["defender"] + 1).mean()  # the share of spam: the model errs on the rest
    assert record.payoffs["attacker"] == pytest.approx(-(float(spam) + 0.5 * 3))
    with pytest.raises(IllegalMove, match="only inputs of class 1 may be"):
        next(game(Everyone(), model, replace(space, of_class=1), price, data).play(1))
    with pytest.raises(IllegalMove, match="its changes cost 3, budget 2"):
        next(game(Everyone(), model, replace(space, budget=2), price, data).play(1))
    with pytest.raises(ValueError, match=r"attacker\.actions\.box=\(0\.0, 2\.0\), but the data's"):
        next(game(Everyone(), model, replace(space, box=(0.0, 2.0)), price, data).play(1))
    with pytest.raises(ValueError, match="has 2 prices, but inputs have 4 features"):
        next(game(Everyone(), model, replace(space, prices=(1, 2)), price, data).play(1))


# --- the optimal adversary ----------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 12)), min_size=1, max_size=3),
)
def test_the_cheapest_set_is_the_cheapest_of_all_sets(items, asked):
    takes = torch.tensor([[take / 2 for take, _ in items]] * len(asked), dtype=torch.float64)
    prices = torch.tensor([price for _, price in items])
    need = torch.tensor([need / 2 for need, _ in asked], dtype=torch.float64)
    most = torch.tensor([most for _, most in asked])
    found = cheapest(takes, prices, need, most)
    for i in range(len(asked)):
        sets = [torch.tensor(s) for s in itertools.product([False, True], repeat=len(items))]
        good = [
            (int(prices[s].sum()), -float(takes[i][s].sum()))
            for s in sets
            if takes[i][s].sum() >= need[i] and prices[s].sum() <= most[i]
        ]
        mine = found[i]
        if not good:
            assert not mine.any()
        else:
            assert (int(prices[mine].sum()), -float(takes[i][mine].sum())) == min(good)
        alone = cheapest(takes[i : i + 1], prices, need[i : i + 1], most[i : i + 1])
        assert torch.equal(alone[0], mine)


def best_utility(model, space, cost, x, y):
    """The least cost to the attacker of any legal change of one input, by trying them all."""
    n = len(x)
    outputs = [
        torch.where(torch.tensor(flags), torch.tensor(ends), x)
        for flags in itertools.product([False, True], repeat=n)
        for ends in itertools.product([0.0, 1.0], repeat=n)
    ]
    outputs = torch.stack(outputs)
    given_ = Labelled(x.expand_as(outputs), y.expand(len(outputs)), 2)
    total = cost.of.answered(model.labels(outputs), given_.y)
    total = total + cost.price * space.price(given_, outputs)
    return float(total[space.permits(given_, outputs)].min())


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.15, 0.3])
@pytest.mark.parametrize(
    "space",
    [FeatureChanges(4, 1), FeatureChanges(5, (1, 2, 1, 3), "up"), FeatureChanges(4, 2, "down")],
    ids=str,
)
def test_the_camouflage_is_the_best_of_all_changes(space, rate, binary):
    cost = MovePrice(SPAM_PASSES, rate)
    changed = 0
    for seed in range(3):
        data, model = some_data(12, 4, seed=seed, binary=binary), some_linear(2, 4, seed)
        moved = attacked(MinimumCostCamouflage(), model, data, space, cost)
        assert space.permits(data, moved).all()
        paid = cost.of.answered(model.labels(moved), data.y) + rate * space.price(data, moved)
        best = [best_utility(model, space, cost, x, y) for x, y in zip(data.x, data.y, strict=True)]
        assert paid.tolist() == pytest.approx(best)
        changed += int((moved != data.x).any(1).sum())
        persisting = attacked(MinimumCostCamouflage(True), model, data, space, cost, batch_size=5)
        assert torch.equal(persisting, moved)  # nor does it depend on the batch
    assert changed > 0


def test_a_change_that_only_breaks_even_is_not_made():
    model = linear(torch.tensor([[0.0, 0.0], [2.0, 1.0]]), torch.tensor([0.0, -0.5]))
    data = Labelled(torch.tensor([[1.0, 1.0]]), torch.tensor([1]), 2)
    for rate, expected in ((0.5, [1.0, 1.0]), (0.49, [0.0, 0.0])):  # it takes both features
        moved = attacked(
            MinimumCostCamouflage(), model, data, FeatureChanges(5), MovePrice(SPAM_PASSES, rate)
        )
        assert moved.tolist() == [expected]


def test_attacks_on_what_they_are_not_for_are_refused():
    camouflage, deletion = MinimumCostCamouflage(), WorstDeletion()
    net = ModuleClassifier(MLP((8,)).build((4,), 2, 0), 2)
    data = some_data(20, 4)
    with pytest.raises(ValueError, match="cannot serve actions=Linf; use actions=feature_changes"):
        attacked(camouflage, net, data, Linf(0.1), ERROR)
    with pytest.raises(ValueError, match="cannot serve actions=Linf; use actions=deletions"):
        attacked(deletion, net, data, Linf(0.1), ERROR)
    for attack, space in ((camouflage, FeatureChanges()), (deletion, Deletions())):
        with pytest.raises(ValueError, match=f"{type(attack).__name__} is exact against linear"):
            attacked(attack, net, data, space, ERROR)
    with pytest.raises(ValueError, match=r"one of two classes .*, and the data have 3"):
        attacked(camouflage, some_linear(3, 4), some_data(9, 4, 3), FeatureChanges(), ERROR)
    with pytest.raises(ValueError, match="takes all mistakes to be equal"):
        cost = CostMatrix(((2, 0, 1), (0, 2, 1), (0, 0, 2)))
        attacked(deletion, some_linear(3, 4), some_data(9, 4, 3), Deletions(), cost)


# --- naive Bayes ----------------------------------------------------------------------------------


def test_naive_bayes_agrees_with_scikit_learn():
    data = some_data(60, 5, classes=3)
    model = BernoulliNB(alpha=1.0).fit(data.x.numpy(), data.y.numpy())
    size = data.y.bincount(minlength=3)
    model.class_log_prior_ = np.log((size.numpy() + 1) / (60 + 3))  # ours is smoothed too
    expected = torch.from_numpy(model.predict_joint_log_proba(data.x.numpy())).float()
    found = defend(NaiveBayes(), data).logits(data.x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_naive_bayes_answers_at_the_least_expected_cost(seed):
    data = some_data(80, 4, classes=3, seed=seed)
    matrix = (4 + 2 * drawn(3, 3, seed=seed)).fill_diagonal_(0)
    cost = CostMatrix(tuple(map(tuple, matrix.tolist())))
    posterior = defend(NaiveBayes(), data).logits(data.x).softmax(1)
    expected = (posterior @ matrix).argmin(1)
    assert torch.equal(defend(NaiveBayes(), data, cost=cost).labels(data.x), expected)
    assert len(expected.unique()) > 1


def test_naive_bayes_of_two_classes_is_linear_whatever_the_cost():
    data = some_data(60, 4)
    logits = defend(NaiveBayes(), data, cost=CostMatrix(((0, 10), (1, 0)))).logits
    a, b = drawn(2, 20, 4, seed=5)
    torch.testing.assert_close(logits((a + b) / 2), (logits(a) + logits(b)) / 2)
    shift = logits(a) - defend(NaiveBayes(), data).logits(a)
    torch.testing.assert_close(shift, torch.tensor([[10.0, 1.0]]).log().expand(20, 2))


def test_what_naive_bayes_cannot_weigh_is_refused():
    class Unsaid(Refusal):
        def answered(self, labels, y):
            raise NotImplementedError

    with pytest.raises(ValueError, match="cost=Unsaid does not say; use cost=error_rate or cost_m"):
        defend(NaiveBayes(), some_data(9, 3), cost=Unsaid())
    with pytest.raises(ValueError, match="every answer costs the same"):
        defend(NaiveBayes(), some_data(9, 3), cost=CostMatrix(((1, 1), (0, 0))))
    with pytest.raises(ValueError, match=r"needs features in \[0, 1\], and the data's box is"):
        defend(NaiveBayes(), replace(some_data(9, 3), box=(-1.0, 1.0)))


# --- naive Bayes that knows its adversary ---------------------------------------------------------


@pytest.mark.parametrize("price", [1, 2])
@pytest.mark.parametrize("direction", ["both", "up", "down"])
@pytest.mark.parametrize("rate", [0.15, 0.3, 0.6])
def test_what_arrives_is_what_the_adversary_makes_of_what_was_sent(direction, rate, price):
    n, met = 6, 0
    space, cost = FeatureChanges(8, price, direction), MovePrice(SPAM_PASSES, rate)
    defender_cost = CostMatrix(((0, 3), (1, 0)))
    everything = torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)))
    for seed in range(3):
        data = some_data(60, n, seed=seed)
        # Half of the features speak for the one class, half for the other.
        tilt = (2.0 * data.y[:, None] - 1) * torch.tensor([0.25, -0.25] * (n // 2))
        data = replace(data, x=(drawn(60, n, seed=seed + 50) < 0.5 + tilt).float())
        rule = defend(AdversaryAwareBayes(), data, task_of(data, space, cost), defender_cost).module
        assert isinstance(rule, AwareRule)
        plain = ModuleClassifier(rule.plain, 2)
        spam = Labelled(everything, torch.ones(len(everything)).long(), 2)
        sent = attacked(MinimumCostCamouflage(), plain, spam, space, cost)
        where = (sent[:, None] == everything[None]).all(2).int().argmax(1)
        before = rule.plain.joint(everything).double()
        after = torch.zeros(len(everything)).double().index_add_(0, where, before[:, 1].exp())
        negative = plain.labels(everything) == 0
        found = before[:, 1] + rule.gained(everything)
        torch.testing.assert_close(found[negative], after[negative].log(), rtol=1e-6, atol=1e-6)
        assert not rule.gained(everything)[~negative].any()
        met += int((after[negative] > before[negative, 1].exp() * 1.01).sum())

        joint = torch.stack([before[:, 0].exp(), torch.where(negative, after, before[:, 1].exp())])
        costs = torch.tensor(defender_cost.matrix).double()  # [truth, answer]
        answer = ModuleClassifier(rule, 2).labels(everything)
        assert torch.equal(answer, (joint.T @ costs).argmin(1))
    assert met > 0 or rate * price > 1


def test_who_is_not_the_papers_adversary_is_refused():
    data = some_data(40, 4)
    cost = MovePrice(SPAM_PASSES, 0.1)
    for actions, why in (
        (Linf(0.1), "changes features of one class, not Linf"),
        (FeatureChanges(of_class=None), "with of_class 0 or 1"),
        (FeatureChanges(of_class=2), "with of_class 0 or 1"),
        (FeatureChanges(prices=(1, 1, 1, 2)), "exact where all changes cost the same"),
    ):
        with pytest.raises(ValueError, match=why):
            defend(AdversaryAwareBayes(), data, task_of(data, actions, cost))
    for other in (some_data(40, 4, binary=False), some_data(40, 4, classes=3)):
        with pytest.raises(ValueError, match="needs binary features and two classes"):
            defend(AdversaryAwareBayes(), other, task_of(other, FeatureChanges(), cost))


# --- deletions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("k", [0, 1, 2, 6])
def test_the_worst_deletion_is_the_worst_of_all(classes, k):
    n, fooled = 5, 0
    for seed in range(4):
        model, data = some_linear(classes, n, seed), some_data(15, n, classes, seed, binary=False)
        moved = attacked(WorstDeletion(), model, data, Deletions(k), ERROR, batch_size=4)
        assert Deletions(k).contains(data.x, moved).all()
        masks = [s for s in itertools.product([0.0, 1.0], repeat=n) if n - sum(s) <= k]
        every = torch.stack([model.labels(data.x * torch.tensor(mask)) for mask in masks])
        beaten = (every != data.y).any(0)
        assert torch.equal(model.labels(moved) != data.y, beaten)
        fooled += int((beaten & (model.labels(data.x) == data.y)).sum())
    assert (fooled > 0) == (k > 0)


def brute_force(data, k, c):
    """The minimum of FDROP's program, a constraint for each example, class and deletion."""
    x = np.concatenate([data.x.numpy(), np.ones((len(data), 1))], 1).astype(float)
    b, n = x.shape
    planes = []  # loss_i >= 1 - (w_y - w_other) . (x_i * mask)
    for mask in itertools.product([0.0, 1.0], repeat=n - 1):
        if n - 1 - sum(mask) <= k:
            for i in range(b):
                for other in range(data.classes):
                    if other != data.y[i]:
                        row = np.zeros((data.classes, n))
                        row[int(data.y[i])] = x[i] * [*mask, 1.0]
                        row[other] = -x[i] * [*mask, 1.0]
                        planes.append(np.concatenate([row.ravel(), np.eye(b)[i]]))
    a = np.array(planes)
    size = data.classes * n
    half = 1.0 if data.classes == 2 else 0.5
    found = minimize(
        lambda v: half * v[:size] @ v[:size] + c * v[size:].sum(),
        np.concatenate([np.zeros(size), np.ones(b)]),
        jac=lambda v: np.concatenate([2 * half * v[:size], np.full(b, c)]),
        bounds=[(None, None)] * size + [(0, None)] * b,
        constraints={"type": "ineq", "fun": lambda v: a @ v - 1, "jac": lambda v: a},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success
    return found.fun


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_fdrop_solves_its_program(k, classes):
    for seed in range(2):
        data = some_data(7, 3, classes, seed, binary=False)
        found = FeatureDeletion(k, c=2.0, tolerance=1e-7).solve(data)
        assert found.bound <= found.objective <= found.bound * (1 + 2e-7)
        assert found.objective == pytest.approx(brute_force(data, k, 2.0), rel=1e-6)


def test_without_deletions_fdrop_is_a_support_vector_machine():
    data = some_data(40, 6, binary=False)
    machine = LinearSVC(loss="hinge", C=0.5, tol=1e-10, max_iter=10**6, random_state=0)
    machine.fit(data.x.numpy(), data.y.numpy())
    w = np.append(machine.coef_, machine.intercept_)
    margin = machine.decision_function(data.x.numpy()) * (2 * data.y.numpy() - 1)
    objective = 0.5 * w @ w + 0.5 * np.maximum(0, 1 - margin).sum()
    found = FeatureDeletion(0, c=0.5, tolerance=1e-7).solve(data)
    assert found.objective == pytest.approx(objective, rel=1e-5)
    logits = defend(FeatureDeletion(0, c=0.5, tolerance=1e-7), data).logits(data.x)
    scores = torch.from_numpy(machine.decision_function(data.x.numpy())).float()
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], scores, rtol=1e-2, atol=1e-2)


def test_what_is_not_solved_is_said():
    with pytest.raises(Unsolved, match=r"after 2 planes .* allow more planes or a wider gap"):
        FeatureDeletion(1, c=10.0, planes=2).solve(some_data(40, 6, binary=False))


def test_cutting_planes_find_a_minimum_known_in_closed_form():
    """1/2 w^2 + c |w - a| has its minimum at the nearer of a and c."""
    for c, a in ((0.5, 2.0), (3.0, 2.0)):

        def risk(w, a=a):
            return (w - a).abs().sum(), (w - a).sign()

        found = minimum(risk, torch.zeros(1).double(), c, 1e-9, 200)
        assert float(found.weights) == pytest.approx(min(a, c), abs=1e-4)
        assert found.bound <= 0.5 * min(a, c) ** 2 + c * (a - min(a, c)) <= found.objective


@pytest.mark.parametrize(
    "strategy", [NaiveBayes(), AdversaryAwareBayes(), FeatureDeletion(1)], ids=str
)
def test_defenders_come_back_as_they_were(strategy):
    data = some_data(40, 5)
    task = task_of(data, FeatureChanges(), MovePrice(SPAM_PASSES, 0.1))
    model = defend(strategy, data, task)
    again, other = defend(strategy, data, task), some_data(40, 5, seed=9)
    restored = strategy.restore(model.state(), other)
    assert torch.equal(model.logits(other.x), again.logits(other.x))
    assert torch.equal(model.logits(other.x), restored.logits(other.x))


# --- the papers' stories, on real data ------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.25])
def test_knowing_the_adversary_pays_on_spam(rate):
    source = Tabular(str(there("spambase/spambase.data")), binary=True)
    cost, price = CostMatrix(((0, 10), (1, 0))), MovePrice(SPAM_PASSES, rate)

    def paid(attack, defense):
        match = game(
            attack,
            defense,
            FeatureChanges(60),
            price,
            source,
            defender_cost=cost,
            examples=1500,
        )
        return -next(match.play(1)).payoffs["defender"]

    paper = MinimumCostCamouflage()
    clean, plain = paid(Honest(), NaiveBayes()), paid(paper, NaiveBayes())
    aware = paid(paper, AdversaryAwareBayes())
    assert plain > clean + 0.1  # the attack hurts
    assert aware < clean + 0.05  # and hardly does once it is foreseen
    # One who goes on until the defender itself is fooled hurts again.
    assert paid(MinimumCostCamouflage(persist=True), AdversaryAwareBayes()) > aware + 0.05


@pytest.mark.mnist
@pytest.mark.skipif(not MNIST_FOLDER.is_dir(), reason=f"no folder {MNIST_FOLDER}; set ARENA_MNIST")
def test_training_for_deletions_pays_on_digits():
    train, test = Subset(MNIST(str(MNIST_FOLDER)), (4, 7), 250).load()

    def errors(trained_for):
        model = Fixed(defend(FeatureDeletion(trained_for, c=0.03), train), classes=2)
        for k in (0, 5, 10, 25):
            match = game(WorstDeletion(), model, Deletions(k), ERROR, test, examples=1000)
            yield next(match.play(1)).metrics["attacked_error"]

    machine, robust = list(errors(0)), list(errors(10))
    assert machine[0] < 0.05 and robust[0] < 0.05
    assert all(ours < theirs - 0.02 for ours, theirs in zip(robust[1:], machine[1:], strict=True))
