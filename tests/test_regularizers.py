"""Indirect and failing training methods: each loss by hand, its limits, what it does to a net."""

import contextlib
import dataclasses
import math

import pytest
import torch
from sklearn.tree import DecisionTreeClassifier
from small import LINEAR, Constant, attacker, defender, evasion, last, seen, turn_on
from torch import nn
from torch.nn.functional import cross_entropy

from arena import Knowledge, Unplayable, chance
from arena.actions.lp import L2, Linf
from arena.attacks.clipped_probabilities import ClippedProbabilities
from arena.attacks.fgsm import FGSM
from arena.attacks.pgd import PGD
from arena.core import Labelled, Task
from arena.costs import ErrorRate, Negation
from arena.data.digits import Digits
from arena.defenses.clean_logit_pairing import CleanLogitPairing
from arena.defenses.distillation import DefensiveDistillation, Teacher
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.defenses.label_smoothing import LabelSmoothing
from arena.defenses.logit_squeezing import LogitSqueezing
from arena.defenses.virtual_adversarial_training import VirtualAdversarialTraining, divergence
from arena.defenses.weight_decay import WeightDecay
from arena.knowledge import View
from arena.learners.networks import MLP
from arena.learners.preprocessing import Preprocessed
from arena.store import Store
from arena.training.classifiers import ModuleClassifier
from arena.training.trainer import Step
from arena.transformations.resize_pad import ResizePad

SMALL = {"learner": MLP((8,)), "epochs": 2, "batch_size": 50}


def digits(n=200, start=0):
    return Digits().load()[0][start : start + n]


def logits_of(rows):
    """A module whose logits for input i (one-hot) are row i: all a loss can see of a net."""
    return linear(torch.tensor(rows).T)


def linear(weight, bias=0.0):
    """A linear module [classes, inputs]; no initial parameters are drawn."""
    module = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(torch.as_tensor(bias))
    return module


ROWS = [[2.0, -1.0, 0.5], [0.0, 1.0, 3.0], [-2.0, 0.0, 1.0]]
GIVEN = Labelled(torch.eye(3), torch.tensor([0, 1, 2]), 3)


def loss(trainer, module=None, batch=GIVEN, **step):
    return trainer.loss(module or logits_of(ROWS), Step(batch, 5, **step))


def log_p(row, temperature=1.0):
    """Log-probabilities, in Python's own arithmetic."""
    total = math.log(sum(math.exp(z / temperature) for z in row))
    return [z / temperature - total for z in row]


def by_hand(value):
    return torch.tensor(value, dtype=torch.float32)


def same(a, b):
    a, b = a.state(), b.state()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


CROSS_ENTROPY = -sum(log_p(row)[i] for i, row in enumerate(ROWS)) / 3


# --- each loss is its formula -----------------------------------------------------------------


def test_label_smoothing_is_its_formula():
    alpha, total = 0.3, 0.0
    for i, row in enumerate(ROWS):
        target = [alpha / 3 + (1 - alpha) * (k == i) for k in range(3)]
        total -= sum(q * p for q, p in zip(target, log_p(row), strict=True))
    torch.testing.assert_close(loss(LabelSmoothing(LINEAR, alpha=alpha)), by_hand(total / 3))


@pytest.mark.parametrize("alpha", [0.1, 0.6])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_label_smoothing_is_least_at_a_finite_margin(alpha, classes):
    """At log(1 + K (1 - alpha) / alpha), as the class says: there, and only there, no slope."""
    margin = torch.tensor(math.log(1 + classes * (1 - alpha) / alpha), requires_grad=True)
    batch = Labelled(torch.ones(1, 1), torch.tensor([0]), classes)

    class Margin(nn.Module):
        def forward(self, x):
            return torch.cat([margin.reshape(1, 1), torch.zeros(1, classes - 1)], 1)

    (slope,) = torch.autograd.grad(
        loss(LabelSmoothing(LINEAR, alpha=alpha), Margin(), batch), margin
    )
    assert abs(float(slope)) < 1e-6


def test_logit_squeezing_is_its_formula():
    squares = sum(z * z for row in ROWS for z in row) / 3
    found = loss(LogitSqueezing(LINEAR, weight=0.2, noise=0.0))
    torch.testing.assert_close(found, by_hand(CROSS_ENTROPY + 0.2 * squares))


def test_clean_logit_pairing_is_its_formula():
    """Of three examples one pair: the first two."""
    distance = sum((a - b) ** 2 for a, b in zip(ROWS[0], ROWS[1], strict=True))
    found = loss(CleanLogitPairing(LINEAR, weight=0.2, noise=0.0))
    torch.testing.assert_close(found, by_hand(CROSS_ENTROPY + 0.2 * distance))


def test_four_examples_make_two_pairs_across_the_halves():
    rows = [*ROWS, [1.0, 1.0, 1.0]]
    pairs = CleanLogitPairing(LINEAR).penalty(torch.tensor(rows))
    apart = [sum((a - b) ** 2 for a, b in zip(rows[i], rows[i + 2], strict=True)) for i in (0, 1)]
    torch.testing.assert_close(pairs, by_hand(sum(apart) / 2))


def test_an_example_alone_has_no_partner():
    assert float(CleanLogitPairing(LINEAR).penalty(torch.ones(1, 3))) == 0.0


@pytest.mark.parametrize("trainer", [LogitSqueezing, CleanLogitPairing])
def test_noise_has_its_size_and_is_the_steps_own(trainer):
    reached = []

    class Spy(nn.Module):
        def forward(self, x):
            reached.append(x.clone())
            return x[:, :3]

    batch = Labelled(torch.full((400, 50), 0.5), torch.zeros(400).long(), 3)
    for seed in (1, 1, 2):
        trainer(LINEAR, noise=0.3).loss(Spy(), Step(batch, seed))
    noise = reached[0] - 0.5
    assert abs(float(noise.mean())) < 5 * 0.3 / 20_000**0.5
    assert abs(float(noise.std()) / 0.3 - 1) < 5 / 40_000**0.5
    assert torch.equal(reached[0], reached[1]) and not torch.equal(reached[0], reached[2])
    trainer(LINEAR, noise=0.3).loss(Spy(), Step(batch[:7], 1))
    assert torch.equal(reached[3], reached[0][:7]), "an example's noise is its own"


@pytest.mark.parametrize(("norm", "size"), [("l1", 2 + 3 + 1 + 4), ("squared_l2", 4 + 9 + 1 + 16)])
def test_weight_decay_is_its_formula_and_leaves_biases(norm, size):
    module = linear(torch.tensor([[2.0, -3.0], [1.0, 4.0]]), [7.0, -50.0])
    batch = Labelled(torch.tensor([[1.0, 1.0]]), torch.tensor([1]), 2)  # logits 6 and -45
    found = loss(WeightDecay(LINEAR, amount=0.1, norm=norm), module, batch)
    torch.testing.assert_close(found, by_hand(51.0 + 0.1 * size))  # exp(-51) is nothing


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_distillation_is_its_formula(temperature):
    taught = [[0.0, 4.0, 1.0], [3.0, 0.0, -1.0], [0.5, 0.5, 9.0]]
    total = 0.0
    for row, teacher in zip(ROWS, taught, strict=True):
        target = [math.exp(q) for q in log_p(teacher, temperature)]
        total -= sum(q * p for q, p in zip(target, log_p(row, temperature), strict=True))
    found = loss(
        DefensiveDistillation(LINEAR, temperature=temperature),
        prepared=ModuleClassifier(logits_of(taught), 3),
    )
    torch.testing.assert_close(found, by_hand(total / 3))
    hard = -sum(log_p(row, temperature)[i] for i, row in enumerate(ROWS)) / 3
    torch.testing.assert_close(loss(Teacher(LINEAR, temperature=temperature)), by_hand(hard))


def test_virtual_adversarial_training_is_its_formula():
    trainer = VirtualAdversarialTraining(LINEAR, eps=0.7, weight=0.4, entropy=0.2, iterations=2)
    module = logits_of(ROWS)
    moved = trainer.moved(module, Step(GIVEN, 5))
    smoothness, entropy = 0.0, 0.0
    for row, other in zip(ROWS, module(moved).tolist(), strict=True):
        p, q = log_p(row), log_p(other)
        smoothness += sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)) / 3
        entropy -= sum(math.exp(a) * a for a in p) / 3
    assert smoothness > 0.01
    expected = CROSS_ENTROPY + 0.4 * smoothness + 0.2 * entropy
    torch.testing.assert_close(loss(trainer, module), by_hand(expected), rtol=1e-5, atol=1e-6)


# --- the limits are plain training ------------------------------------------------------------

LIMITS = [
    LabelSmoothing(**SMALL, alpha=0.0),
    LogitSqueezing(**SMALL, weight=0.0, noise=0.0),
    CleanLogitPairing(**SMALL, weight=0.0, noise=0.0),
    WeightDecay(**SMALL, amount=0.0, norm="l1"),
    WeightDecay(**SMALL, amount=0.0, norm="squared_l2"),
    VirtualAdversarialTraining(**SMALL, weight=0.0),
    Teacher(**SMALL, temperature=1.0),
]


def named(trainer):
    return type(trainer).__name__ + getattr(trainer, "norm", "")


@pytest.mark.parametrize("trainer", LIMITS, ids=named)
def test_the_limit_is_erm_to_the_bit(trainer):
    assert same(trainer.train(digits(), 3), ERM(**SMALL).train(digits(), 3))


TRAINERS = [
    LabelSmoothing(**SMALL),
    LogitSqueezing(**SMALL),
    CleanLogitPairing(**SMALL),
    WeightDecay(**SMALL, norm="l1"),
    WeightDecay(**SMALL),
    VirtualAdversarialTraining(**SMALL, labelled=0.5, entropy=0.1),
    VirtualAdversarialTraining(**SMALL, eps=None),
    DefensiveDistillation(**SMALL),
]
TASK = Task((1, 8, 8), 10, (0.0, 1.0), Linf(0.1), Negation(ErrorRate()))


@pytest.mark.parametrize("trainer", TRAINERS, ids=repr)
def test_a_training_is_a_function_of_the_seed_and_another_than_erm(trainer):
    model = trainer.train(digits(), 3, TASK)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert same(trainer.train(digits(), 3, TASK), model)
    assert not same(trainer.train(digits(), 4, TASK), model)
    assert not same(ERM(**SMALL).train(digits(), 3), model)


@pytest.mark.parametrize("trainer", TRAINERS, ids=repr)
def test_a_broken_training_goes_on_to_the_same_bits(tmp_path, monkeypatch, trainer):
    whole, update, calls = trainer.train(digits(), 3, TASK), type(trainer).update, []

    def failing(self, module, optimizer, step):
        if type(self) is type(trainer):
            calls.append(step.seed)
            if len(calls) == 7:  # of 8: in the second epoch
                raise KeyboardInterrupt
        return update(self, module, optimizer, step)

    monkeypatch.setattr(type(trainer), "update", failing)
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train(digits(), 3, TASK, store=Store(tmp_path))
    assert len(calls) == 7 and list(tmp_path.glob("*.progress.pt"))
    assert same(trainer.train(digits(), 3, TASK, store=Store(tmp_path)), whole)
    assert len(calls) == 7 + 4, "the first epoch is not done again"


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("trainer", TRAINERS, ids=repr)
def test_few_classes_and_inputs_that_are_no_images(trainer, classes):
    x = torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
    data = Labelled(x, (x[:, 0] * classes).long(), classes)
    task = dataclasses.replace(TASK, shape=(5,), classes=classes)
    assert trainer.train(data, 0, task).logits(x).isfinite().all()


# --- virtual adversarial training -------------------------------------------------------------


def softmax_regression(seed=0, inputs=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(classes, n, generator=generator) for n in (inputs, 1))
    module = linear(weight, bias[:, 0])
    x = torch.rand(9, inputs, generator=generator)
    return module, Labelled(x, torch.zeros(9).long(), classes)


def fisher(module, x):
    """The Hessian of KL(p(x) || p(x + r)) at r = 0, for one x: W' (diag p - p p') W."""
    p, weight = module(x).softmax(0).double(), module.weight.double()
    return weight.T @ (p.diag() - p[:, None] * p[None, :]) @ weight


def test_power_iteration_finds_the_dominant_direction():
    """Of the Fisher matrix, known for softmax regression: the share of the largest eigenvalue."""
    module, batch = softmax_regression()

    @torch.no_grad()
    def shares(iterations):
        trainer = VirtualAdversarialTraining(LINEAR, eps=0.5, xi=1e-2, iterations=iterations)
        found = []
        with torch.enable_grad():
            moved = trainer.moved(module, Step(batch, 1))
        for x, to in zip(batch.x, moved, strict=True):
            hessian, d = fisher(module, x), (to - x).double() / 0.5
            assert abs(float(d.norm()) - 1) < 1e-5
            largest = torch.linalg.eigvalsh(hessian)[-1]
            found.append(float(d @ hessian @ d / largest))
        return torch.tensor(found)

    one, many = shares(1), shares(40)
    # xi and float32 leave the gradients off by a percent or so, the quotient by its square.
    assert bool((many > 0.999).all()), many
    assert float(one.mean()) < float(many.mean()), "the start is no eigenvector"


def test_the_direction_follows_the_declared_geometry():
    module, batch = softmax_regression()
    space = Linf(0.1)
    task = dataclasses.replace(TASK, shape=(6,), classes=4, actions=space)
    trainer = VirtualAdversarialTraining(LINEAR, eps=None)
    moved = trainer.moved(module, Step(batch, 1, task=task))
    assert bool(space.contains(batch.x, moved).all())
    inside = (batch.x > 0.11) & (batch.x < 0.89)
    change = (moved - batch.x)[inside].abs()
    torch.testing.assert_close(change, torch.full_like(change, 0.1), rtol=1e-5, atol=0.0)


def test_paper_geometry_knows_no_box():
    module, batch = softmax_regression()
    moved = VirtualAdversarialTraining(LINEAR, eps=3.0).moved(module, Step(batch, 1))
    length = (moved - batch.x).norm(dim=1)
    torch.testing.assert_close(length, torch.full_like(length, 3.0))
    assert float(moved.max()) > 1.0 or float(moved.min()) < 0.0


def test_an_examples_direction_is_its_own():
    module, batch = softmax_regression()
    trainer = VirtualAdversarialTraining(LINEAR, iterations=3)
    whole, part = (trainer.moved(module, Step(b, 1)) for b in (batch, batch[:4]))
    torch.testing.assert_close(whole[:4], part, rtol=1e-5, atol=1e-5)


def test_a_model_that_answers_alike_everywhere_is_smooth():
    module = Constant([0.3, 0.1])
    batch = Labelled(torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), GIVEN.y[:1], 2)
    batch = dataclasses.replace(batch, y=torch.zeros(4).long())
    trainer = VirtualAdversarialTraining(LINEAR)
    assert torch.equal(trainer.moved(module, Step(batch, 1)), batch.x), "no slope, no direction"
    torch.testing.assert_close(
        loss(trainer, module, batch), cross_entropy(module(batch.x), batch.y)
    )


def test_a_random_module_flips_the_same_coins_on_both_sides():
    """Its own noise is no lack of smoothness: where x does not move, there is no divergence."""
    flips = Preprocessed(ResizePad(0.5, 1.0), LINEAR.build((1, 8, 8), 10, 0))
    with torch.no_grad():
        flips.model[1].weight.mul_(10.0)
    batch, key = digits(20), chance.keys(1, 20)
    plain, other = flips(batch.x, key).detach(), flips(batch.x, chance.fold(key, 1)).detach()
    assert float(divergence(plain, other).mean()) > 0.1
    still = VirtualAdversarialTraining(LINEAR, eps=1e-6).loss(flips, Step(batch, 1))
    torch.testing.assert_close(still, cross_entropy(plain, batch.y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_tenth_of_the_labels_is_used_and_no_other(weight):
    data = digits(300)
    trainer = VirtualAdversarialTraining(**SMALL, labelled=0.1, weight=weight)
    known = trainer.prepared(data, 3, None, LINEAR, None)
    assert len(known) == 30
    used = (data.x[:, None] == known.x[None]).flatten(2).all(2).any(1)
    assert int(used.sum()) == 30  # no two digits are alike
    false = dataclasses.replace(data, y=torch.where(used, data.y, (data.y + 1) % 10))
    assert same(trainer.train(data, 3), trainer.train(false, 3))
    true = dataclasses.replace(data, y=torch.where(used, (data.y + 1) % 10, data.y))
    assert not same(trainer.train(data, 3), trainer.train(true, 3))
    assert not torch.equal(trainer.prepared(data, 4, None, LINEAR, None).y, known.y)


def test_inputs_without_labels_help():
    """With the labels of 30 digits, the smoothness over 970 more lowers the error on others."""
    data, others = digits(1000), digits(700, start=1000)

    def mistakes(weight, seed):
        few = {"epochs": 20, "batch_size": 100, "lr": 0.01, "labelled": 0.03}
        trainer = VirtualAdversarialTraining(MLP((64,)), **few, eps=0.5, weight=weight)
        return int((trainer.train(data, seed).labels(others.x) != others.y).sum())

    alone, smooth = (sum(mistakes(weight, seed) for seed in (1, 2)) for weight in (0.0, 1.0))
    # Three standard deviations of the difference of two shares of 1,400, had they one truth.
    share = (alone + smooth) / 2800
    assert (alone - smooth) / 1400 > 3 * (2 * share * (1 - share) / 1400) ** 0.5, (alone, smooth)


def test_bad_shares_are_refused():
    with pytest.raises(ValueError, match="labelled=0 leaves no label to learn from; raise it"):
        VirtualAdversarialTraining(LINEAR, labelled=0.0)


def test_the_attackers_space_is_looked_at_only_where_it_is_needed():
    assert VirtualAdversarialTraining(LINEAR).needs == {}
    assert VirtualAdversarialTraining(LINEAR, eps=None).needs == {"attacker": View}
    hidden = Knowledge(task=False)
    last(evasion(attacker(FGSM()), defender(VirtualAdversarialTraining(LINEAR, epochs=1), hidden)))
    with pytest.raises(Unplayable, match=r"eps=null takes r from the attacker's declared space"):
        evasion(attacker(FGSM()), defender(VirtualAdversarialTraining(LINEAR, eps=None), hidden))


# --- distillation -----------------------------------------------------------------------------


def test_the_teacher_is_kept_and_not_trained_twice(tmp_path):
    trainer = DefensiveDistillation(**SMALL)
    model = trainer.train(digits(), 3, store=Store(tmp_path))
    kept = {path.name for path in tmp_path.glob("*.safetensors")}
    assert len(kept) == 2
    seed = chance.seed_of(3, "teacher")
    teacher = Teacher(**SMALL, temperature=20.0).train(digits(), seed, store=Store(tmp_path))
    assert {path.name for path in tmp_path.glob("*.safetensors")} == kept, "it was there"
    again = trainer.prepared(digits(), 3, None, trainer.learner, Store(tmp_path))
    assert same(again, teacher) and not same(model, teacher)
    assert same(model, trainer.train(digits(), 3)), "a store changes nothing"


def test_a_sure_teacher_at_temperature_1_teaches_the_labels():
    sure = ModuleClassifier(logits_of([[100.0 * (i == k) for k in range(3)] for i in range(3)]), 3)
    found = loss(DefensiveDistillation(LINEAR, temperature=1.0), prepared=sure)
    torch.testing.assert_close(found, by_hand(CROSS_ENTROPY))


def test_a_students_logits_are_larger_by_the_temperature():
    """Softmax regression on one binary feature, to its optimum, where answers are frequencies.

    Plain training ends at the logarithms of the odds; the teacher, whose logits are divided by T,
    at T times them, and so does the student, whose targets the teacher's answers are.
    """
    x = torch.tensor([0.0] * 40 + [1.0] * 40)[:, None]
    y = torch.tensor([1] * 10 + [0] * 30 + [1] * 32 + [0] * 8)
    trainer = DefensiveDistillation(LINEAR, epochs=250, batch_size=80, lr=0.3, temperature=5.0)
    logits = trainer.train(Labelled(x, y, 2), 0).logits(torch.tensor([[0.0], [1.0]]))
    odds = torch.tensor([10 / 30, 32 / 8])
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], 5 * odds.log(), rtol=1e-2, atol=0.0)


@pytest.fixture(scope="module")
def distilled():
    """Of real digits: a net trained plainly, and one distilled."""
    how = {"learner": MLP((64,)), "epochs": 20, "batch_size": 50, "lr": 0.03}
    plain = ERM(**how).train(digits(1000), 1)
    return plain, DefensiveDistillation(**how, temperature=20.0).train(digits(1000), 1)


def margins(model, data):
    top = model.logits(data.x).topk(2, 1).values
    return top[:, 0] - top[:, 1]


def test_distillation_saturates_the_answers_to_digits(distilled):
    """Where the classes can be told apart, logits grow without end, and T times takes longer."""
    unseen = digits(500, start=1000)
    plain, student = (margins(model, unseen) for model in distilled)
    assert 20 / 3 < float(student.median() / plain.median()) < 20
    # Beyond log 1e7, all probabilities are within 1e-7 of 0 and 1.
    beyond = [float((of > math.log(1e7)).double().mean()) for of in (plain, student)]
    assert beyond[0] < 0.3 and beyond[1] > 0.85, beyond


def attacked_error(model, attack, data, eps=0.3):
    turn = turn_on(seen(model, data), attack, data, Linf(eps))
    return float((model.labels(attack.respond(turn)) != data.y).double().mean())


def test_distillation_stands_against_clipped_probabilities_and_falls_without(distilled):
    """The published story: nothing of the defense is left once logits are looked at."""
    unseen = digits(300, start=1000)
    _, student = distilled
    clean, blind, open_eyed, descent = (
        attacked_error(student, attack, unseen)
        for attack in (FGSM(step=1e-9), ClippedProbabilities(FGSM()), FGSM(), PGD(20, 0.1))
    )
    assert clean < 0.1
    assert blind < clean + 0.1, "almost all gradients are 0"
    assert open_eyed > 0.6 and descent > 0.9


# --- attacks on clipped probabilities ---------------------------------------------------------


def test_where_no_probability_is_clipped_the_attack_is_itself():
    module, batch = softmax_regression()
    model = ModuleClassifier(nn.Sequential(module), 4)
    assert float(model.logits(batch.x).softmax(1).amin()) > 1e-6
    plain, through = (
        attack.respond(turn_on(seen(model, batch), attack, batch, L2(0.3)))
        for attack in (FGSM(), ClippedProbabilities(FGSM()))
    )
    torch.testing.assert_close(plain, through, rtol=1e-4, atol=1e-5)


def test_where_all_are_clipped_nothing_moves():
    module, batch = softmax_regression()
    with torch.no_grad():
        module.weight.mul_(1000.0)
    model = ModuleClassifier(module, 4)
    batch = dataclasses.replace(batch, y=model.labels(batch.x))
    assert float(margins(model, batch).min()) > 17
    attack = ClippedProbabilities(FGSM())
    assert torch.equal(attack.respond(turn_on(seen(model, batch), attack, batch)), batch.x)
    plain = FGSM().respond(turn_on(seen(model, batch), FGSM(), batch))
    assert not torch.equal(plain, batch.x)


@pytest.mark.parametrize("least", [1e-9, 0.5])
def test_a_clip_that_float32_cannot_make_is_refused(least):
    with pytest.raises(ValueError, match=r"least = .* must be below 0.5, and at least 2\^-24"):
        ClippedProbabilities(FGSM(), least=least)


# --- what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("tree", [DecisionTreeClassifier, Fixed])
def test_a_tree_cannot_be_distilled(tree):
    data = digits()
    fitted = DecisionTreeClassifier(random_state=0).fit(data.x.flatten(1), data.y)
    learner = Fixed(fitted) if tree is Fixed else fitted
    said = rf"DefensiveDistillation trains networks .*, and learner={tree.__name__} is none; give"
    with pytest.raises(ValueError, match=said):
        DefensiveDistillation(learner)


def test_the_shell_says_so_in_a_line(shell, tmp_path):
    tree = "{_target_: sklearn.tree.DecisionTreeClassifier}"
    said = shell("defender/strategy=distillation", f"defender.strategy.learner={tree}")
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert "DecisionTreeClassifier does not derive, by its source, from arena.classi" in said.err
    assert not list(tmp_path.rglob("rounds.jsonl"))
