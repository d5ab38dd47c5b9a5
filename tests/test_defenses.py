"""Defenders: what they learn, what they may look at, and what they give away."""

import dataclasses
import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from arena.actions.decisions import Confidence
from arena.actions.lp import Linf
from arena.attacks.honest import Honest
from arena.attacks.pgd import PGD
from arena.classification import Answers, Classifier, Learner
from arena.core import Labelled, Player, Strategy, Task, Turn
from arena.costs import ErrorRate, Negation
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.defenses.inner import attacked
from arena.defenses.retrain import Retrain, union
from arena.knowledge import Knowledge, LabelView, SampleView, ScoreView, View, WhiteBox
from arena.learners.networks import MLP
from arena.ledger import Ledger
from arena.training.classifiers import ModuleClassifier
from arena.training.trainer import Diverged, Step, Trainer

LINEAR = MLP(())
EPS = 0.1


def draw(n, seed):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def separable(n=200, seed=0):
    """Two classes on either side of a gap of 0.2 in the first of two coordinates."""
    x = torch.stack([draw(n, seed), draw(n, seed + 1000)], 1)
    y = (x[:, 0] > 0.5).long()
    x[:, 0] = 0.4 * x[:, 0] + torch.where(y == 1, 0.6, 0.0)
    return Labelled(x, y, 2)


def two_kinds_of_features(n, seed, weak=100):
    """Tsipras et al. 2019 (1805.12152), section 2.1, put into the box [0, 1].

    The first feature tells the class with a margin of 0.4, but lies for one example in ten; the
    others hardly tell it (shift 0.05 against a deviation of 0.1), but all together they do.
    """
    y = (draw(n, seed) > 0.5).long()
    sign = 2.0 * y - 1.0
    honest = torch.where(draw(n, seed + 1) < 0.1, -1.0, 1.0)
    generator = torch.Generator().manual_seed(seed + 2)
    noise = 0.1 * torch.randn(n, weak, generator=generator)
    x = torch.cat([(0.4 * sign * honest)[:, None], 0.05 * sign[:, None] + noise], 1)
    return Labelled((0.5 + x).clamp(0, 1), y, 2)


def task_of(data, space=None):
    space = space or Linf(EPS)
    return Task(data.shape, data.classes, data.box, space, Negation(ErrorRate()))


def turn_of(strategy, data, view=None, seed=0):
    player = Player(Confidence(data.classes), ErrorRate(), Knowledge(samples=True), strategy)

    def look(opponent, kind):
        assert view is not None, f"{type(strategy).__name__} looked at the {opponent}"
        assert opponent == "attacker" and isinstance(view, kind)
        return view

    return Turn(player, 0, data, None, None, seed, 1024, look)


def of_attacker(data, *samples):
    return SampleView("attacker", Knowledge(samples=True), {"task": task_of(data)}, tuple(samples))


def same(a, b):
    a, b = a.state(), b.state()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def error(model, data):
    return float((model.labels(data.x) != data.y).double().mean())


def pgd_error(model, data):
    ledger = Ledger(len(data), None)
    knowledge = Knowledge.white_box()
    view = WhiteBox("defender", knowledge, {}, model, ledger)
    player = Player(Linf(EPS), Negation(ErrorRate()), knowledge, PGD(20, 0.2))
    turn = Turn(player, 0, data, None, None, 7, 1024, lambda *_: view)
    return error(model, dataclasses.replace(data, x=player.strategy.respond(turn)))


# --- empirical risk minimisation ------------------------------------------------------------


@pytest.mark.parametrize("learner", [LINEAR, MLP((8,))], ids=str)
def test_erm_learns_what_can_be_separated(learner):
    erm = ERM(learner, epochs=30, batch_size=20, lr=0.05)
    model = erm.respond(turn_of(erm, separable()))
    assert error(model, separable()) == 0
    assert error(model, separable(500, seed=5)) < 0.02  # the gap leaves room for 1 in 50
    assert not model.module.training
    assert not any(p.requires_grad for p in model.module.parameters())


def test_training_minimises_the_cross_entropy():
    """Softmax regression on one binary feature: at the optimum, scores are frequencies."""
    x = torch.tensor([0.0] * 40 + [1.0] * 40)[:, None]
    y = torch.tensor([1] * 10 + [0] * 30 + [1] * 32 + [0] * 8)
    model = ERM(LINEAR, epochs=400, batch_size=80, lr=0.05).train(Labelled(x, y, 2), seed=0)
    found = model.answer(torch.tensor([[0.0], [1.0]])).scores.exp()[:, 1]
    torch.testing.assert_close(found, torch.tensor([10 / 40, 32 / 40]), atol=1e-3, rtol=0)


TRAINERS = [
    ERM(MLP((6,)), epochs=2, batch_size=32),
    AdversarialTraining(MLP((6,)), epochs=2, batch_size=32, inner=PGD(2, 0.5)),
    AdversarialTraining(MLP((6,)), epochs=2, batch_size=32, inner=PGD(2, 0.5), clean=0.5),
]


@pytest.mark.parametrize("trainer", TRAINERS, ids=["erm", "madry", "mixture"])
def test_training_is_a_function_of_the_seed(trainer):
    data = separable()
    task = task_of(data)
    model = trainer.train(data, 3, task)
    with torch.random.fork_rng(devices=[]):  # the suite forbids to move the global generator
        torch.manual_seed(99)
        assert same(trainer.train(data, 3, task), model)
    assert not same(trainer.train(data, 4, task), model)


def test_the_seed_shuffles_the_examples():
    """From the same initial parameters, two orders of the examples end in two models."""

    @dataclass(frozen=True)
    class Zeros(Learner):
        def layers(self, shape, classes):
            module = LINEAR.layers(shape, classes)
            for p in module.parameters():
                nn.init.zeros_(p)
            return module

    def model(seed):
        return ERM(Zeros(), epochs=1, batch_size=10).train(separable(), seed)

    assert same(model(1), model(1)) and not same(model(1), model(2))


def test_every_example_is_seen_once_an_epoch():
    seen = []

    @dataclass(frozen=True)
    class Spy(Trainer):
        def loss(self, module, step):
            seen.append(step.batch.x[:, 0].tolist())
            return module(step.batch.x).sum()

    x = (torch.arange(10) / 10)[:, None]
    Spy(LINEAR, epochs=2, batch_size=4).train(Labelled(x, torch.zeros(10).long(), 2), seed=0)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    for epoch in (seen[:3], seen[3:]):
        assert sorted(value for batch in epoch for value in batch) == x[:, 0].tolist()
    assert seen[:3] != seen[3:]


@pytest.mark.parametrize("trainer", TRAINERS[:2], ids=["erm", "madry"])
def test_a_model_comes_back_from_its_state(trainer):
    data = separable()
    model = trainer.train(data, 3, task_of(data))
    again = trainer.restore({k: v.clone() for k, v in model.state().items()}, data)
    assert same(model, again)
    assert torch.equal(model.logits(data.x), again.logits(data.x))
    assert not again.module.training
    assert not any(p.requires_grad for p in again.module.parameters())


def test_a_trainer_without_a_learner_needs_one_named():
    data = separable()
    bare = ERM(None, epochs=1)
    with pytest.raises(ValueError, match="ERM has no learner to train; name one"):
        bare.train(data, 0)
    assert same(bare.train(data, 0, learner=LINEAR), ERM(LINEAR, epochs=1).train(data, 0))


def test_the_architecture_may_be_anothers():
    model = ERM(LINEAR, epochs=1).train(separable(), 0, learner=MLP((3,)))
    assert model.module[1].weight.shape == (3, 2)


# --- divergence -----------------------------------------------------------------------------


def test_steps_so_large_that_the_loss_overflows_are_reported():
    trainer = ERM(MLP((8,)), epochs=3, lr=1e20)  # two layers: products of 1e40
    with pytest.raises(Diverged) as caught:
        trainer.train(separable(), 0)
    assert isinstance(caught.value, ValueError)
    said = str(caught.value)
    assert re.match(r"ERM diverged in epoch 1 of 3, step \d of 2: the loss is ", said)
    assert "lower lr=1e+20 or check the data" in said


@dataclass(frozen=True)
class Poisoned(Trainer):
    """Its loss is NaN, or finite with a gradient that is not, from some epoch's batch on."""

    kind: str = "loss"
    after: int = 0
    calls: ClassVar[list[int]] = []

    def loss(self, module, step):
        self.calls.append(step.seed)
        loss = module(step.batch.x).mean()
        if len(self.calls) <= self.after:
            return loss
        if self.kind == "loss":
            return loss * float("nan")
        return (loss * 0.0).abs().sqrt()  # 0, with a slope of infinity times 0


def poisoned(**fields):
    Poisoned.calls.clear()
    return Poisoned(LINEAR, batch_size=100, **fields).train(separable(), 0)


def test_the_step_in_which_the_loss_became_nan_is_named():
    with pytest.raises(Diverged, match=r"Poisoned diverged in epoch 1 of 4, step 1 of 2: the lo"):
        poisoned(epochs=4)
    with pytest.raises(Diverged, match=r"epoch 3 of 4, step 2 of 2: the loss is nan; lower lr="):
        poisoned(epochs=4, after=5)  # 200 examples: two batches an epoch
    assert isinstance(poisoned(epochs=4, after=8), ModuleClassifier)


def test_a_last_step_into_nan_is_not_handed_on():
    with pytest.raises(Diverged, match="parameters are not finite"):
        poisoned(epochs=2, after=3, kind="gradient")


# --- adversarial training -------------------------------------------------------------------


def test_adversarial_training_gives_up_the_features_that_an_attacker_owns():
    """Closed form: with eps = 0.1 an attacker turns the weak features (0.05) around entirely.

    A model that uses the strong one alone errs on its lies, one in ten, attacked or not (0.4 >
    eps). ERM goes for the weak ones too, whose joint evidence is 0.05 / 0.1 * sqrt(100) = 5
    deviations, and moved by eps they are 5 deviations on the other side: it errs on most. Stated
    margin: 0.5.
    """
    train, test = two_kinds_of_features(1000, 0), two_kinds_of_features(600, 50)
    options = {"epochs": 30, "batch_size": 100, "lr": 0.1}
    erm = ERM(LINEAR, **options).train(train, 0)
    robust = AdversarialTraining(LINEAR, inner=PGD(3, 0.7), **options).train(
        train, 0, task_of(train)
    )
    # 600 examples: 0.1 has a standard error of 0.012.
    for found in (error(erm, test), error(robust, test), pgd_error(robust, test)):
        assert found < 0.15
    assert pgd_error(robust, test) > 0.05
    assert pgd_error(erm, test) > pgd_error(robust, test) + 0.5


@dataclass(frozen=True)
class Spy(Strategy):
    """An inner attack that checks what it is given, and moves every input up by half of eps."""

    needs: ClassVar = {"defender": WhiteBox}
    turns: ClassVar[list] = []

    def respond(self, turn):
        view = turn.see("defender", WhiteBox)
        assert not view.module.training
        assert not any(p.requires_grad for p in view.module.parameters())
        rows = torch.arange(len(turn.data))
        x = turn.data.x.clone().requires_grad_()
        loss = turn.player.cost.surrogate(view.logits(x, rows), turn.data.y, 2).sum()
        loss.backward()  # into x alone: nothing else asks for a gradient
        assert x.grad.abs().sum() > 0
        assert all(p.grad is None for p in view.module.parameters())
        assert view._ledger.gradients.tolist() == [1] * len(rows)
        Spy.turns.append(turn)
        return turn.player.actions.project(turn.data.x, turn.data.x + turn.player.actions.eps / 2)


def test_the_inner_attack_makes_no_parameter_gradients_and_the_outer_step_does():
    data = separable(30)
    task = task_of(data)
    trainer = AdversarialTraining(MLP((4,)), inner=Spy())
    Spy.turns.clear()
    module = trainer.learner.build(data.shape, 2, seed=0).train()
    step = Step(data, 11, task=task)
    moved = attacked(trainer.inner, module, step, task)
    assert task.actions.contains(data.x, moved).all()
    assert module.training
    for p in module.parameters():
        assert p.requires_grad and p.grad is None
    (turn,) = Spy.turns
    assert turn.seed == 11 and torch.equal(turn.data.x, data.x)
    assert turn.player.cost == task.cost and turn.player.actions == task.actions
    assert turn.see("defender", WhiteBox).task == task
    trainer.loss(module, step).backward()
    for p in module.parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0


@pytest.mark.parametrize("clean", [0.0, 0.25, 1.0])
def test_the_loss_is_the_declared_mixture(clean):
    data = separable(30)
    task = task_of(data)
    trainer = AdversarialTraining(LINEAR, inner=Spy(), clean=clean)
    module = LINEAR.build(data.shape, 2, seed=0)
    step = Step(data, 0, task=task)
    moved = attacked(trainer.inner, module, step, task)
    on_clean, on_attacked = (
        nn.functional.cross_entropy(module(x), data.y) for x in (data.x, moved)
    )
    assert not torch.isclose(on_clean, on_attacked)
    found = trainer.loss(module, step)
    torch.testing.assert_close(found, clean * on_clean + (1 - clean) * on_attacked)


def test_against_an_attacker_that_cannot_move_it_is_erm():
    data = separable()
    options = {"learner": MLP((5,)), "epochs": 2, "batch_size": 50}
    still = AdversarialTraining(inner=PGD(2, 0.5), **options)
    assert same(still.train(data, 0, task_of(data, Linf(0.0))), ERM(**options).train(data, 0))
    honest = AdversarialTraining(inner=Honest(), **options)
    assert same(honest.train(data, 0, task_of(data)), ERM(**options).train(data, 0))


def test_adversarial_training_reads_the_task_and_nothing_else():
    data = separable(40)
    trainer = AdversarialTraining(LINEAR, epochs=1, inner=PGD(1, 1.0))
    view = View("attacker", Knowledge.no_box(), {"task": task_of(data)})
    assert same(trainer.respond(turn_of(trainer, data, view)), trainer.train(data, 0, view.task))
    hidden = View("attacker", Knowledge(task=False), {"task": task_of(data)})
    with pytest.raises(PermissionError, match=r"task of the attacker is hidden.*knowledge\.task"):
        trainer.respond(turn_of(trainer, data, hidden))
    with pytest.raises(ValueError, match=r"needs knowledge\.task"):
        trainer.train(data, 0)


def test_the_inner_attack_must_be_one_on_a_classifier():
    inner = Retrain(ERM(LINEAR))  # which asks for samples: no model in training has any
    trainer = AdversarialTraining(LINEAR, inner=inner)
    player = Player(Confidence(2), ErrorRate(), Knowledge(), trainer)
    with pytest.raises(ValueError, match="inner=Retrain is not an attack on a classifier"):
        trainer.check(player)
    AdversarialTraining(LINEAR).check(player)


# --- retraining -----------------------------------------------------------------------------


def batch(value, label, n=10):
    return Labelled(torch.full((n, 2), value), torch.full((n,), label), 2)


@dataclass(frozen=True)
class Recorder(ERM):
    data: ClassVar[list] = []

    def train(self, data, seed, task=None, learner=None, store=None):
        Recorder.data.append(data)
        return super().train(data, seed, task, learner, store)


@pytest.mark.parametrize(("memory", "kept"), [("all", [0, 1, 2]), ("latest", [2])])
def test_retraining_takes_its_data_and_what_was_revealed(memory, kept):
    own = separable(20)
    shown = [batch(0.1, 1, 3), batch(0.2, 0, 4), batch(0.3, 1, 5)]
    Recorder.data.clear()
    strategy = Retrain(Recorder(LINEAR, epochs=1), memory)
    model = strategy.respond(turn_of(strategy, own, of_attacker(own, *shown), seed=4))
    (used,) = Recorder.data
    assert torch.equal(used.x, torch.cat([own.x, *(shown[i].x for i in kept)]))
    assert torch.equal(used.y, torch.cat([own.y, *(shown[i].y for i in kept)]))
    assert same(model, ERM(LINEAR, epochs=1).train(used, 4))


@pytest.mark.parametrize("memory", ["all", "latest"])
def test_retraining_on_nothing_revealed_is_training(memory):
    own = separable(20)
    strategy = Retrain(ERM(LINEAR, epochs=2), memory)
    model = strategy.respond(turn_of(strategy, own, of_attacker(own)))
    assert same(model, ERM(LINEAR, epochs=2).train(own, 0))


def test_retraining_learns_what_it_was_shown_and_the_latest_only_forgets():
    own = separable(100)
    # Points deep in either class's half under the other's label, one batch a round.
    first, second = batch(0.05, 1, 60), batch(0.95, 0, 60)

    def trained(memory):
        recipe = ERM(MLP((16,)), epochs=60, batch_size=40, lr=0.03)
        strategy = Retrain(recipe, memory)
        return strategy.respond(turn_of(strategy, own, of_attacker(own, first, second)))

    everything, latest = trained("all"), trained("latest")
    assert error(everything, first) == error(everything, second) == 0
    assert error(latest, second) == 0 and error(latest, first) == 1


def test_retraining_adversarially_tells_its_recipe_the_task():
    own = separable(40)
    recipe = AdversarialTraining(LINEAR, epochs=1, inner=PGD(1, 1.0))
    strategy = Retrain(recipe)
    shown = batch(0.1, 1)
    model = strategy.respond(turn_of(strategy, own, of_attacker(own, shown)))
    assert same(model, recipe.train(union(own, shown), 0, task_of(own)))
    again = strategy.restore(model.state(), own)
    assert same(model, again)


def test_a_union_is_in_order_and_leaves_its_parts_alone():
    a, b = batch(0.1, 0, 2), batch(0.2, 1, 3)
    both = union(a, b, a)
    assert both.y.tolist() == [0, 0, 1, 1, 1, 0, 0] and both.classes == 2
    assert len(a) == 2 and torch.equal(union(a).x, a.x)


def test_memory_is_all_or_latest():
    with pytest.raises(ValueError, match=r"Retrain\.memory = 'some' must be one of all, latest"):
        Retrain(ERM(LINEAR), "some")


# --- a model of the user's own --------------------------------------------------------------


def test_what_happens_to_the_users_module_later_does_not_matter():
    module = LINEAR.build((2,), 2, seed=0)
    data = separable(20)
    strategy = Fixed(module, classes=2)
    before = strategy.respond(turn_of(strategy, data)).logits(data.x)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(5.0)
    assert not torch.equal(module(data.x), before)
    assert torch.equal(strategy.respond(turn_of(strategy, data)).logits(data.x), before)
    # Nor does the match change the user's.
    assert module.training and all(p.requires_grad for p in module.parameters())


def test_fixed_commits_to_one_model_in_every_round_and_after_a_restart():
    data = separable(20)
    strategy = Fixed(LINEAR.build((2,), 2, seed=0), classes=2)
    model = strategy.respond(turn_of(strategy, data, seed=0))
    assert strategy.respond(turn_of(strategy, data, seed=1)) is model
    assert same(strategy.restore(model.state(), data), model)
    function = Fixed(lambda x: (x[:, 0] > 0.5).long(), classes=2)
    model = function.respond(turn_of(function, data))
    assert error(function.restore(model.state(), data), data) == 0


def test_fixed_serves_whatever_can_classify():
    data = separable(60)
    estimator = LogisticRegression(C=100.0).fit(data.x.numpy(), data.y.numpy())

    class Own(Classifier):
        widest = LabelView
        classes = 2

        def logits(self, x):
            return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], 1)

        def answer(self, x):
            return Answers(self.labels(x))

    for model, answers, exposes in [
        (estimator, "labels", ScoreView),
        (lambda x: (x[:, 0] > 0.5).long(), "labels", LabelView),
        (lambda x: torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], 1), "scores", ScoreView),
        (Own(), "labels", LabelView),
    ]:
        strategy = Fixed(model, classes=2, answers=answers)
        assert strategy.exposes is exposes
        assert error(strategy.respond(turn_of(strategy, data)), data) == 0
    assert Fixed(LINEAR.build((2,), 2, 0), classes=2).exposes is WhiteBox


def test_fixed_says_what_does_not_fit():
    strategy = Fixed(LINEAR.build((2,), 3, seed=0), classes=3)
    with pytest.raises(ValueError, match=r"Fixed\(classes=3\), but the data have 2 classes"):
        strategy.respond(turn_of(strategy, separable(10)))
    with pytest.raises(ValueError, match="cannot play a int"):
        Fixed(3)
    with pytest.raises(ValueError, match="LogisticRegression has no classes_: fit it"):
        Fixed(LogisticRegression())


# --- what others may know -------------------------------------------------------------------


def inside(value):
    """Everything that can be reached from a fact through fields, containers and attributes."""
    yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, dict):
        value = list(value.values())
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from inside(item)


LEARNER = MLP((3, 4))
STRATEGIES = {
    "erm": ERM(LEARNER),
    "madry": AdversarialTraining(LEARNER),
    "retrain": Retrain(ERM(LEARNER)),
    "retrain madry": Retrain(AdversarialTraining(LEARNER)),
    "fixed module": Fixed(LINEAR.build((2,), 2, 0), classes=2),
    "fixed function": Fixed(lambda x: x, classes=2),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_facts_hold_no_model_and_the_algorithm_no_architecture(name):
    facts = STRATEGIES[name].facts()
    assert facts.keys() <= {"algorithm", "architecture"}
    for fact in facts.values():
        assert not any(isinstance(v, nn.Module | Classifier | torch.Tensor) for v in inside(fact))
    for value in inside(facts.get("algorithm")):
        assert not isinstance(value, Learner)
    assert facts.get("architecture") == (None if name.startswith("fixed") else LEARNER)


def test_the_search_above_finds_what_is_there():
    assert any(isinstance(v, Learner) for v in inside(STRATEGIES["retrain madry"]))
    assert any(isinstance(v, nn.Module) for v in inside({"a": [STRATEGIES["fixed module"]]}))


def test_the_algorithm_can_train_any_learner():
    data = separable(20)
    algorithm = ERM(LEARNER, epochs=3, lr=0.01).facts()["algorithm"]
    assert algorithm == ERM(None, epochs=3, lr=0.01)
    assert same(
        algorithm.train(data, 0, None, LINEAR), ERM(LINEAR, epochs=3, lr=0.01).train(data, 0)
    )
