"""Attacks that change what another attack sees: the gradients they show, and that they bite."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from small import attacker, seen, turn_on
from torch import nn
from torch.nn.functional import cross_entropy, pad

from arena import Labelled, chance
from arena.actions.lp import L2, Linf
from arena.attacks.bpda import BPDA
from arena.attacks.eot import EOT
from arena.attacks.fgsm import FGSM
from arena.attacks.input_diversity import InputDiversity
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.attacks.translation_invariant import TranslationInvariant
from arena.costs import Targeted
from arena.data.digits import Digits
from arena.defenses.erm import ERM
from arena.defenses.feature_squeezing import Squeezing
from arena.learners.networks import MLP
from arena.learners.preprocessing import Preprocessed, Preprocessing
from arena.ledger import Ledger
from arena.training.classifiers import committed
from arena.transformations.bit_depth import BitDepth
from arena.transformations.gaussian_noise import GaussianNoise
from arena.transformations.resize_pad import ResizePad
from arena.transformations.transformation import Transformation

SHAPE = (2, 6, 5)
WRAPPERS = [
    EOT(PGD(3, 0.4), draws=2),
    EOT(PGD(3, 0.4), draws=2, transformation=ResizePad(0.6)),
    BPDA(PGD(3, 0.4)),
    InputDiversity(PGD(3, 0.4), least=0.6),
    TranslationInvariant(PGD(3, 0.4), radius=1),
    EOT(BPDA(InputDiversity(TranslationInvariant(FGSM()))), draws=2),
]


def points(n=40, classes=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *SHAPE, generator=generator)
    return Labelled(x, torch.randint(0, classes, (n,), generator=generator), classes)


def linear(classes=3):
    return MLP(()).build(SHAPE, classes, seed=0)


def mlp(classes=3):
    return MLP((16,)).build(SHAPE, classes, seed=0)


def behind(preprocess, model=None):
    return committed(Preprocessed(preprocess, model or mlp()), 3)


def through(wrapper, model, data, ledger=None):
    """The view that the wrapper gives the attack within."""
    view = seen(model, data, ledger)
    return wrapper.through(view, turn_on(view, wrapper, data))


def slope(view, data, of):
    """The gradient of `of(logits)` with respect to all inputs."""
    x = data.x.clone().requires_grad_()
    return torch.autograd.grad(of(view.logits(x, torch.arange(len(data)))), x)[0]


def right(data):
    """The sum of the logits of the true classes."""
    return lambda logits: logits.gather(1, data.y[:, None]).sum()


# All of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [Linf(0.1), L2(0.5)], ids=str)
@pytest.mark.parametrize("wrapper", WRAPPERS, ids=str)
def test_what_is_played_is_legal_and_depends_on_no_batch_size(wrapper, space):
    data, model = points(15), behind(GaussianNoise(0.2))
    played = []
    for batch_size in (1, 7, 64):
        turn = turn_on(seen(model, data), wrapper, data, space, batch_size=batch_size)
        played.append(wrapper.respond(turn))
        assert space.contains(data.x, played[-1]).all()
    for moved in played[1:]:
        torch.testing.assert_close(moved, played[0])


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=str)
def test_a_radius_of_zero_leaves_the_input(wrapper):
    data = points()
    turn = turn_on(seen(behind(GaussianNoise(0.2)), data), wrapper, data, Linf(0.0))
    assert torch.equal(wrapper.respond(turn), data.x)


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=str)
def test_nan_on_some_examples_leaves_the_others_alone(wrapper):
    class Cracked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            bad = x.flatten(1).amax(1, keepdim=True) > 2.0
            return self.inner(x) + torch.where(bad, torch.nan, 0.0)

    data = points()
    data = Labelled(data.x, data.y, 3, (0.0, 9.0))
    cracked = Labelled(data.x.clone(), data.y, 3, (0.0, 9.0))
    cracked.x[::2] += 3.0
    space, model = Linf(0.1, (0.0, 9.0)), committed(Cracked(), 3)
    whole, broken = (
        wrapper.respond(turn_on(seen(model, d), wrapper, d, space)) for d in (data, cracked)
    )
    assert broken.isfinite().all() and space.contains(cracked.x, broken).all()
    torch.testing.assert_close(broken[1::2], whole[1::2])


@pytest.mark.parametrize("kind", [EOT, BPDA, InputDiversity, TranslationInvariant])
def test_a_wrapper_asks_of_a_match_what_its_attack_does(kind):
    kind(PGD()).check(attacker())
    kind(BPDA(FGSM())).check(attacker())
    with pytest.raises(ValueError, match=f"{kind.__name__} changes .* attack=Square is none"):
        kind(Square()).check(attacker())
    with pytest.raises(ValueError, match="restarts without random_start"):
        kind(PGD(restarts=2, random_start=False)).check(attacker())


@pytest.mark.parametrize(
    "idle",
    [
        BPDA(PGD(4, 0.3)),
        InputDiversity(PGD(4, 0.3), probability=0.0),
        TranslationInvariant(PGD(4, 0.3), radius=0),
        EOT(PGD(4, 0.3), draws=1, average="logits"),
        EOT(PGD(4, 0.3), draws=4, average="logits"),
    ],
    ids=str,
)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_wrapper_that_changes_nothing_is_the_attack_within(idle, classes):
    data, model = points(classes=classes), committed(mlp(classes), classes)
    for cost in (None, Targeted(1)):
        wrapped, plain = (
            strategy.respond(turn_on(seen(model, data), strategy, data, Linf(0.1), cost))
            for strategy in (idle, PGD(4, 0.3))
        )
        assert torch.equal(wrapped, plain)


def test_the_passes_of_an_average_together_are_a_batch():
    rows = []

    class Counting(nn.Linear):
        def forward(self, x):
            rows.append(len(x))
            return super().forward(x)

    with torch.random.fork_rng(devices=[]):
        model = committed(nn.Sequential(nn.Flatten(), Counting(60, 3)), 3)
    attack, data = EOT(PGD(2, 0.4), draws=4), points(40)
    attack.respond(turn_on(seen(model, data), attack, data, batch_size=24))
    assert max(rows) == 24 // 4


def test_a_wrapper_serves_part_of_a_turn_as_it_serves_the_whole():
    data, model = points(), behind(GaussianNoise(0.2))
    some = torch.tensor([3, 4, 11, 30])
    for wrapper in WRAPPERS:
        whole = turn_on(seen(model, data), wrapper, data, Linf(0.1))
        moved = wrapper.respond(whole)[some]
        part = turn_on(seen(model, data), wrapper, data, Linf(0.1)).on(some)
        torch.testing.assert_close(wrapper.respond(part), moved)


@dataclass(frozen=True)
class Halves(PGD):
    """Serves the even examples, then the odd: an attack that calls for part of its turn."""

    def respond(self, turn):
        rows, moved = torch.arange(len(turn.data)), turn.data.x.clone()
        for half in (rows[::2], rows[1::2]):
            moved[half] = super().respond(turn.on(half))
        return moved


@pytest.mark.parametrize("wrapper", WRAPPERS[:5], ids=str)
def test_an_attack_within_may_take_its_examples_in_parts(wrapper):
    data, model, moved = points(), behind(GaussianNoise(0.2)), []
    for attack in (PGD(3, 0.4), Halves(3, 0.4)):
        wrapped = replace(wrapper, attack=attack)
        turn = turn_on(seen(model, data), wrapped, data, Linf(0.1))
        moved.append(wrapped.respond(turn))
    torch.testing.assert_close(*moved)


def test_only_the_defenders_own_answers_end_a_search():
    """One step is enough on these; whoever may not be sure of that goes on."""
    data, ledgers = points(), {}
    model = committed(mlp(), 3)
    for kind in (PGD, BPDA, TranslationInvariant, EOT, InputDiversity):
        attack = PGD(6, 0.3) if kind is PGD else kind(PGD(6, 0.3))
        ledgers[kind] = ledger = Ledger(40, None)
        turn = turn_on(seen(model, data, ledger), attack, data, Linf(0.5))
        attack.respond(replace(turn, closing=True))
    for kind in (PGD, BPDA, TranslationInvariant):
        assert ledgers[kind].queries.min() < 7
    for kind, draws in ((EOT, 10), (InputDiversity, 1)):
        assert (ledgers[kind].queries == 7 * draws).all()


# Expectation over transformation ---------------------------------------------------------------


def test_the_average_is_that_of_the_answers_one_would_get():
    data, model, rows = points(), behind(GaussianNoise(0.5)), torch.arange(40)
    plain = seen(model, data)
    answers = torch.stack([plain.logits(data.x, rows) for _ in range(5)])
    assert (answers.std(0) > 1e-3).all()
    logits = through(EOT(draws=5, average="logits"), model, data).logits(data.x, rows)
    torch.testing.assert_close(logits, answers.mean(0))
    log_mean = through(EOT(draws=5), model, data).logits(data.x, rows)
    torch.testing.assert_close(log_mean.exp(), answers.softmax(2).mean(0))


def test_the_attackers_own_transformations_are_averaged_over():
    """Of a linear model at x + noise, the logits' spread falls with the root of the draws."""
    data, model, rows = points(200), committed(linear(), 3), torch.arange(200)
    weight = model.module[1].weight
    exact = model.logits(data.x)
    for draws in (4, 64):
        wrapper = EOT(draws=draws, average="logits", transformation=GaussianNoise(0.3))
        off = (through(wrapper, model, data).logits(data.x, rows) - exact) / weight.norm(dim=1)
        # 600 numbers (correlated between classes): 15 % is some four standard errors.
        assert float(off.square().mean().sqrt()) == pytest.approx(0.3 / math.sqrt(draws), rel=0.15)


def test_every_draw_is_paid_for():
    data, ledger = points(), Ledger(40, None)
    wrapper = EOT(PGD(steps=3, step=0.1, restarts=2), draws=5)
    view = seen(behind(GaussianNoise(0.1)), data, ledger)
    wrapper.respond(turn_on(view, wrapper, data, Linf(0.1)))
    assert (ledger.queries == 5 * 8).all() and (ledger.gradients == 5 * 6).all()


def digits_behind(preprocess, seed, learner, epochs=10):
    """A model trained behind a transformation, and 200 other digits."""
    digits, _ = Digits().load()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    recipe = ERM(Preprocessing(learner, preprocess), epochs=epochs)
    return recipe.train(digits[order[:1000]], seed), digits[order[1000:1200]]


def error(model, x, y, draws=20):
    """The error that the model's coins come to on average, of which no attack saw any."""
    coins = [chance.keys(10**6 + t, len(x)) for t in range(draws)]
    wrong = [model.drawn(key).labels(x) != y for key in coins]
    return float(torch.stack(wrong).float().mean())


def test_eot_beats_plain_descent_against_random_resizing():
    plain, longer, averaged = [], [], []
    for seed in range(2):
        model, data = digits_behind(ResizePad(0.5), seed, MLP((64,)))
        for errors, attack in (
            (plain, PGD(8, 0.3)),
            (longer, PGD(64, 0.1)),
            (averaged, EOT(PGD(8, 0.3), draws=8)),
        ):
            moved = attack.respond(turn_on(seen(model, data), attack, data, Linf(0.2)))
            errors.append(error(model, moved, data.y))
    assert all(more > less + 0.05 for less, more in zip(plain, averaged, strict=True))
    assert sum(averaged) > sum(longer), "as many passes, spent on steps"


# Backward pass differentiable approximation ----------------------------------------------------


@dataclass(frozen=True)
class Coarse(Transformation):
    """Noise, then rounding: random, and without a gradient."""

    random: ClassVar[bool] = True

    def __call__(self, x, key):
        return BitDepth(2)(GaussianNoise(0.2)(x, key), key)


@dataclass(frozen=True)
class Scaled(Transformation):
    """c x."""

    by: float = 2.0

    def __call__(self, x, key):
        return self.by * x


@dataclass(frozen=True)
class Doubled(Transformation):
    """[B, C, H, W] to [B, 2 C, H, W], as an encoding would."""

    def __call__(self, x, key):
        return torch.cat([x, 1 - x], 1).round()


@dataclass(frozen=True)
class SmoothlyDoubled(Transformation):
    """`Doubled`, without the rounding."""

    def __call__(self, x, key):
        return torch.cat([x, 1 - x], 1)


def test_forward_is_the_real_thing_to_the_bit():
    data, rows = points(), torch.arange(40)
    for preprocess in (BitDepth(2), Coarse()):
        model = behind(preprocess)
        for substitute in (None, Scaled(0.3)):
            bent = through(BPDA(backward=substitute), model, data)
            x = data.x.clone().requires_grad_()
            assert torch.equal(bent.logits(x, rows), seen(model, data).logits(data.x, rows))


def test_backward_is_the_substitutes():
    data, model = points(), behind(BitDepth(2))
    assert (slope(seen(model, data), data, right(data)) == 0).all(), "nothing to go by"
    level = Labelled(BitDepth(2)(data.x, chance.keys(0, 40)), data.y, 3)
    at_level = slope(seen(committed(mlp(), 3), data), level, right(data))
    assert torch.equal(slope(through(BPDA(), model, data), data, right(data)), at_level)
    twice = through(BPDA(backward=Scaled(2.0)), model, data)
    torch.testing.assert_close(slope(twice, data, right(data)), 2 * at_level)


def test_a_preprocessing_that_changes_the_shape_wants_a_substitute_that_does():
    data = points()
    model = committed(Preprocessing(MLP((8,)), Doubled()).build(SHAPE, 3, seed=0), 3)
    with pytest.raises(ValueError, match=r"returns \[2, 6, 5\] .* Doubled\(\) returns \[4, 6, 5\]"):
        slope(through(BPDA(), model, data), data, right(data))
    bent = through(BPDA(backward=SmoothlyDoubled()), model, data)
    assert (slope(bent, data, right(data)) != 0).any(0).all()


def test_transformations_within_are_passed_by_too():
    """A detector compares the answers to an input and to its squeezed twin, which has no slope."""
    data, model = points(), committed(Squeezing(mlp(), (BitDepth(2),), 3), 3)

    def distance(logits):  # less the threshold, a constant
        return (logits[:, 3] - logits[:, :3].amax(1)).sum()

    bent = slope(through(BPDA(), model, data), data, distance)
    assert not torch.allclose(slope(seen(model, data), data, distance), bent)
    x = data.x.clone().requires_grad_()
    squeezed = x + (BitDepth(2)(x, chance.keys(0, len(x))) - x).detach()
    one, other = (mlp().requires_grad_(False)(at).softmax(1) for at in (x, squeezed))
    (expected,) = torch.autograd.grad((one - other).abs().sum(), x)
    torch.testing.assert_close(bent, expected)


def test_bpda_costs_what_its_attack_does():
    data, ledger = points(), Ledger(40, None)
    wrapper = BPDA(PGD(steps=5, step=0.1))
    wrapper.respond(turn_on(seen(behind(BitDepth()), data, ledger), wrapper, data, Linf(0.1)))
    assert (ledger.queries == 6).all() and (ledger.gradients == 5).all()


def test_bpda_and_eot_commute():
    data, model, rows = points(), behind(Coarse()), torch.arange(40)
    ways = []
    for outer, inner in ((EOT(draws=6), BPDA()), (BPDA(), EOT(draws=6))):
        ledger = Ledger(40, None)
        view = through(outer, model, data, ledger)
        view = inner.through(view, turn_on(view, inner, data))
        gradient = slope(view, data, right(data))
        assert (ledger.queries == 6).all() and (ledger.gradients == 6).all()
        assert (gradient != 0).any(0).all()
        ways.append((gradient, view.logits(data.x, rows)))
    assert all(torch.equal(one, other) for one, other in zip(*ways, strict=True))


@pytest.mark.parametrize("bits", [1, 3])
def test_bpda_beats_plain_descent_against_rounding(bits):
    """Plain descent, without a gradient, ends where it starts: at random noise."""
    for seed in range(2):
        model, data = digits_behind(BitDepth(bits), seed, MLP((64,)))
        errors = []
        for attack in (PGD(20, 0.15), BPDA(PGD(20, 0.15))):
            moved = attack.respond(turn_on(seen(model, data), attack, data, Linf(0.25)))
            errors.append(float((model.labels(moved) != data.y).float().mean()))
        assert errors[1] > errors[0] + 0.25, errors


# Without a box ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrapper", [InputDiversity(PGD(2, 0.1)), TranslationInvariant(PGD(2, 0.1))], ids=str
)
def test_features_are_no_images(wrapper):
    data = Labelled(points().x.flatten(1), points().y, 3)
    model = committed(MLP(()).build(data.shape, 3, seed=0), 3)
    with pytest.raises(ValueError, match="drop it for features"):
        wrapper.respond(turn_on(seen(model, data), wrapper, data, Linf(0.1)))


def test_input_diversity_transforms_a_share_of_the_passes_anew():
    data, model, rows = points(200), committed(mlp(), 3), torch.arange(200)
    view = through(InputDiversity(probability=0.5, least=0.5), model, data)
    plain = model.logits(data.x)
    moved = torch.stack(
        [(view.logits(data.x, rows) - plain).abs().amax(1) > 1e-5 for _ in range(20)]
    )
    # A share of .5, less some transformations that happen to keep the size: 4 000 passes.
    assert 0.35 < float(moved.float().mean()) < 0.52
    assert moved.any(0).all() and not moved.all(0).any(), "some examples are always the same"


@pytest.mark.parametrize("radius", [0, 1, 2, 3])
def test_a_smoothed_gradient_is_the_mean_over_shifts(radius):
    """On a linear model the paper's equation 7 is exact: gradients of shifted images, weighted."""
    data, model = points(), committed(linear(), 3)
    weight = model.module[1].weight.reshape(3, *SHAPE)[data.y]
    offsets = range(-radius, radius + 1)
    bell = {i: math.exp(-((3 * i / radius) ** 2) / 2) if radius else 1.0 for i in offsets}
    total = sum(bell.values()) ** 2
    wide = pad(weight, (radius,) * 4)
    expected = torch.zeros_like(weight)
    for i in offsets:
        for j in offsets:
            shifted = wide[:, :, radius + i : radius + i + 6, radius + j : radius + j + 5]
            expected += bell[i] * bell[j] / total * shifted
    view = through(TranslationInvariant(radius=radius), model, data)
    torch.testing.assert_close(slope(view, data, right(data)), expected)
    rows = torch.arange(40)
    assert torch.equal(view.logits(data.x, rows), model.logits(data.x)), "forward is untouched"


def test_wrapped_attacks_still_follow_the_cost():
    """A mean over shifts and sizes is a guide still: the loss rises on a model it fits."""
    data, model = points(), committed(mlp(), 3)
    before = cross_entropy(model.logits(data.x), data.y, reduction="none")
    for wrapper in (InputDiversity(PGD(10, 0.2), least=0.8), TranslationInvariant(PGD(10, 0.2), 1)):
        moved = wrapper.respond(turn_on(seen(model, data), wrapper, data, Linf(0.2)))
        after = cross_entropy(model.logits(moved), data.y, reduction="none")
        assert (after > before).float().mean() > 0.9
