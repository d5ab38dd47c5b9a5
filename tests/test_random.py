"""Classifiers that flip coins: fresh for every pass, and the same however they are asked."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from small import attacker, defender, evasion, last, seen

from arena import Knowledge, Labelled, LabelView, ScoreView, WhiteBox, chance
from arena.attacks.hopskipjump import HopSkipJump
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.classification import decide
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.learners.networks import MLP
from arena.learners.preprocessing import Preprocessed, Preprocessing
from arena.ledger import Ledger
from arena.training.classifiers import ModuleClassifier, RandomClassifier, committed
from arena.transformations.bit_depth import BitDepth
from arena.transformations.gaussian_noise import GaussianNoise
from arena.transformations.resize_pad import ResizePad

NOISY = Preprocessing(MLP((16,)), GaussianNoise(0.5))


def noisy(seed=0, classes=3, shape=(1, 4, 4)):
    return committed(NOISY.build(shape, classes, seed), classes)


def points(n=200, classes=3, shape=(1, 4, 4), seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *shape, generator=generator)
    return Labelled(x, torch.randint(0, classes, (n,), generator=generator), classes)


# Keys ------------------------------------------------------------------------------------------


def test_the_key_of_an_input_is_its_own():
    x = points().x
    key = chance.of(x)
    assert len(key.unique()) == len(x)
    assert torch.equal(chance.of(x[50:60]), key[50:60])
    assert torch.equal(chance.of(x[:1].expand(3, -1, -1, -1)), key[:1].expand(3))
    assert torch.equal(chance.of(torch.zeros(1, 4)), chance.of(-torch.zeros(1, 4)))
    swapped = x.flip(3)
    assert (chance.of(swapped) != key).all(), "the same values elsewhere"
    nudged = x.clone()
    nudged[:, 0, 0, 0] = nudged[:, 0, 0, 0].nextafter(torch.ones(()))
    assert (chance.of(nudged) != key).all()


def test_queries_are_numbered_by_example_however_they_are_batched():
    rows = torch.tensor([2, 0, 2, 2, 1, 0])
    numbers = [[0, 0, 1, 2, 0, 1], [3, 2, 4, 5, 1, 3]]
    at_once, one_by_one = Ledger(3, None), Ledger(3, None)
    for expected in numbers:
        assert at_once.numbers(rows).tolist() == expected
        at_once.charge(rows)
        for row, number in zip(rows, expected, strict=True):
            assert one_by_one.numbers(row[None]).tolist() == [number]
            one_by_one.charge(row[None])


# Views -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "ask"), [(ScoreView, "scores"), (WhiteBox, "logits")])
def test_every_pass_meets_fresh_coins_and_they_depend_on_no_batch(kind, ask):
    data, model = points(70), noisy()
    rows = torch.arange(len(data)).repeat(2)

    def answers(size):
        view = kind("defender", Knowledge.white_box(), {}, model, Ledger(len(data), None))
        parts = [getattr(view, ask)(data.x[part], part) for part in rows.split(size)]
        return torch.cat(parts)

    first, again = answers(len(rows)).chunk(2)
    assert ((first - again).abs().amax(1) > 1e-3).all(), "the same coins twice"
    for size in (1, 7, 300):
        torch.testing.assert_close(answers(size), torch.cat([first, again]))


def test_labels_are_random_as_scores_are():
    data, model = points(), noisy()
    rows = torch.arange(len(data))
    views = [
        kind("defender", Knowledge.white_box(), {}, model, Ledger(len(data), None))
        for kind in (LabelView, ScoreView)
    ]
    for _ in range(3):
        labels, scores = views[0].labels(data.x, rows), views[1].scores(data.x, rows)
        assert torch.equal(labels, decide(scores, 3))
    assert (views[0].labels(data.x, rows) != labels).any()


def test_a_view_of_a_random_classifier_pays_and_counts_as_any_other():
    data, view = points(), seen(noisy(), points())
    x = data.x.requires_grad_()
    view.logits(x, torch.arange(len(data))).sum().backward()
    assert (view._ledger.queries == 1).all() and (view._ledger.gradients == 1).all()


# Alone -----------------------------------------------------------------------------------------


def test_outside_a_view_an_answer_is_a_function_of_the_input():
    data, model = points(), noisy()
    answer = model.answer(data.x)
    for rows in torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).split(7):
        torch.testing.assert_close(model.answer(data.x[rows]).scores, answer.scores[rows])
    view = seen(model, data)
    fresh = view.scores(data.x, torch.arange(len(data)))
    assert ((fresh - answer.scores).abs().amax(1) > 1e-3).all(), "a view drew the scored coins"


def test_coins_are_fresh_in_training_and_repeat_with_the_seed():
    """The coins of a module in training are torch's own, which a training seeds."""
    module, x = NOISY.build((1, 4, 4), 3, seed=0), points().x
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first, second = module(x), module(x)
        assert ((first - second).abs().amax(1) > 1e-3).all()
        torch.manual_seed(5)
        assert torch.equal(module(x), first) and torch.equal(module(x), second)
    assert torch.equal(module.eval()(x), module(x))


def test_a_random_model_behind_a_random_preprocessing_has_coins_of_its_own():
    """Noise after a random resizing: answers differ by either's coins, and repeat with the key."""
    inner = Preprocessed(GaussianNoise(0.3), MLP().build((1, 4, 4), 3, seed=0))
    fixed = Preprocessed(BitDepth(8), inner).eval()
    x, key = points().x, chance.keys(1, len(points()))
    assert fixed.random and torch.equal(fixed(x, key), fixed(x, key))
    assert ((fixed(x, key) - fixed(x, chance.fold(key, 9))).abs().amax(1) > 1e-3).all()
    rounded = BitDepth(8)(x, key)
    assert torch.equal(fixed(x, key), inner(rounded, chance.fold(key, 1)))
    assert type(committed(fixed, 3)) is RandomClassifier


def test_only_a_random_transformation_makes_a_random_classifier():
    model = MLP().build((1, 4, 4), 3, seed=0)
    assert type(committed(Preprocessed(BitDepth(), model), 3)) is ModuleClassifier
    assert type(committed(Preprocessed(ResizePad(), model), 3)) is RandomClassifier
    assert type(committed(model, 3)) is ModuleClassifier
    assert type(Fixed(Preprocessed(GaussianNoise(0.1), model), 3).model) is RandomClassifier


# Transformations -------------------------------------------------------------------------------


def test_bit_depth_rounds_to_its_levels():
    x = torch.linspace(0, 1, 1001)[:, None]
    key = chance.keys(0, len(x))
    for bits in (1, 3, 8):
        y = BitDepth(bits)(x, key)
        assert len(y.unique()) == 2**bits
        assert (y - x).abs().max() <= 0.5 / (2**bits - 1) + 1e-6
        assert y[0] == 0 and y[-1] == 1
    y = BitDepth(1, (-3.0, 5.0))(torch.tensor([[-3.0, 0.9, 1.1, 5.0]]), key[:1])
    assert y.tolist() == [[-3.0, -3.0, 5.0, 5.0]]


def test_noise_has_its_mean_and_spread():
    x = points(500).x
    noise = GaussianNoise(0.3)(x, chance.keys(0, len(x))) - x
    # 8 000 numbers: standard errors .0034 of the mean, .0024 of the spread.
    assert abs(float(noise.mean())) < 0.015 and abs(float(noise.std()) - 0.3) < 0.01


def test_an_image_shrinks_onto_black_and_keeps_its_size():
    x = torch.full((400, 2, 10, 8), 0.5)
    x[200:, 1] = 0.25
    key = chance.keys(3, len(x))
    y = ResizePad(0.5)(x, key)
    assert y.shape == x.shape
    there = y[:, 0] != 0
    high, wide = there.any(2).sum(1), there.any(1).sum(1)
    assert torch.equal(there.sum((1, 2)), high * wide), "no rectangle"
    assert high.min() == 5 and high.max() == 10 and wide.min() == 4 and wide.max() == 8
    assert y.unique().tolist() == [0.0, 0.25, 0.5]
    left = there.any(1).int().argmax(1)
    assert set(left[wide == 4].tolist()) == {0, 1, 2, 3, 4}, "all places"
    assert torch.equal(ResizePad(0.5)(x[30:40], key[30:40]), y[30:40])


def test_an_image_of_full_size_is_left_alone():
    x, key = points().x, chance.keys(3, 200)
    assert torch.equal(ResizePad(1.0)(x, key), x)
    assert torch.equal(ResizePad(0.3, probability=0.0)(x, key), x)
    moved = (ResizePad(0.3, probability=0.5)(x, key) != x).flatten(1).any(1)
    # Binomial(200, 1/2): four standard deviations are 28.
    assert 72 <= int(moved.sum()) <= 128
    with pytest.raises(ValueError, match="drop it for features"):
        ResizePad()(torch.zeros(3, 5), key[:3])


def test_half_an_image_is_every_second_pixel():
    x = torch.arange(64.0).reshape(1, 1, 8, 8) + 1
    seen_ = set()
    for seed in range(200):
        y = ResizePad(0.5)(x, chance.keys(seed, 1))[0, 0]
        rows, columns = (y != 0).any(1), (y != 0).any(0)
        if rows.sum() == 4 and columns.sum() == 4:
            seen_.add(tuple(y[rows][:, columns].flatten().tolist()))
    assert seen_ == {tuple(x[0, 0, 1::2, 1::2].flatten().tolist())}


# Matches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "knowledge"),
    [
        (PGD(4, 0.3), Knowledge.white_box()),
        (Square(6), Knowledge.black_box("scores", 7)),
        (HopSkipJump(2, 4, init_trials=3), Knowledge.black_box("labels", 30)),
    ],
    ids=["pgd", "square", "hopskipjump"],
)
def test_a_match_against_coins_depends_on_no_batch_size(strategy, knowledge):
    model = ERM(Preprocessing(MLP((16,)), GaussianNoise(0.2)), epochs=2)
    records = [
        last(evasion(attacker(strategy, knowledge), defender(model), examples=30, rows=rows))
        for rows in (1, 7, 1024)
    ]
    for record in records:
        assert record.metrics["attacked_error"] == records[0].metrics["attacked_error"]
        assert record.metrics["queries"] == records[0].metrics["queries"]
        torch.testing.assert_close(record.costs, records[0].costs)


@dataclass(frozen=True)
class Asked(PGD):
    """Notes whether what it sees is what is scored."""

    closing: ClassVar[list] = []

    def respond(self, turn):
        Asked.closing.append(turn.closing)
        return turn.data.x


def test_what_fools_one_draw_does_not_end_a_search():
    Asked.closing.clear()
    for learner in (MLP((16,)), NOISY):
        last(evasion(attacker(Asked()), defender(ERM(learner, epochs=1)), examples=10))
    assert Asked.closing == [True, False]


def test_a_random_defender_comes_back_as_it_was():
    strategy = ERM(NOISY, epochs=1)
    data = points()
    model = strategy.train(data, seed=4)
    back = strategy.restore(model.state(), data)
    assert isinstance(back, RandomClassifier)
    assert torch.equal(back.answer(data.x).scores, model.answer(data.x).scores)
