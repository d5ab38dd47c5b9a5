"""Wrappers around trained defenders: they nest, come back, and do to answers what they say."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from small import Constant, attacker, defender, evasion, last, seen, turn_on
from torch import nn

from arena import Knowledge, Labelled, Player, ScoreView, Turn, WhiteBox, chance
from arena.actions.decisions import ClassOrRefusal, Confidence
from arena.actions.lp import L0, L1, L2, Linf
from arena.arena import Unplayable
from arena.attacks.bpda import BPDA
from arena.attacks.eot import EOT
from arena.attacks.honest import Honest
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.certificates.interval import Interval
from arena.core import Strategy
from arena.costs import CostMatrix, ErrorRate, Negation, QueryPrice, Refusal
from arena.data.digits import Digits
from arena.defenses.augmented_training import AugmentedTraining
from arena.defenses.certifying import Certifying
from arena.defenses.erm import ERM
from arena.defenses.feature_squeezing import FeatureSqueezing
from arena.defenses.fixed import Fixed
from arena.defenses.mixture import Mixture
from arena.defenses.refusing import Refusing
from arena.defenses.retrain import Retrain
from arena.defenses.rounded_scores import RoundedScores, rounded
from arena.defenses.smoothing import RandomizedSmoothing, at_least, least, separating
from arena.defenses.transformed import Transformed
from arena.knowledge import REFUSED, SampleView
from arena.learners.networks import MLP
from arena.learners.preprocessing import Preprocessing, coins
from arena.ledger import Ledger
from arena.training.classifiers import ModuleClassifier, RandomClassifier
from arena.transformations.bit_depth import BitDepth
from arena.transformations.gaussian_noise import GaussianNoise
from arena.transformations.resize_pad import ResizePad
from arena.transformations.transformation import Transformation

LEARNER = MLP((24,))
PLAIN = ERM(LEARNER, epochs=6, lr=0.01)
NOISY = AugmentedTraining(LEARNER, epochs=6, lr=0.01)


def digits(n=300):
    return Digits().load()[0][:n]


def player(strategy, cost=None, actions=None):
    return Player(actions or ClassOrRefusal(), cost or Refusal(0.3), Knowledge(), strategy)


def turn_of(strategy, data, cost=None, seed=3, batch_size=64, samples=()):
    """The defender's turn, with what an attacker revealed for whoever looks."""
    view = SampleView("attacker", Knowledge(samples=True), {}, samples)
    return Turn(
        player(strategy, cost), 0, data, None, None, seed, batch_size, lambda opponent, kind: view
    )


def made(strategy, data=None, **turn):
    data = data or digits()
    return strategy.respond(turn_of(strategy, data, **turn))


def smoothing(of=NOISY, **fields):
    return RandomizedSmoothing(of, **{"samples": 11, "estimation": 50, "selection": 10} | fields)


@dataclass(frozen=True)
class Given(Strategy):
    """Commits to a module as it is, trained or not."""

    module: nn.Module

    @property
    def exposes(self):
        return WhiteBox

    def respond(self, turn):
        return ModuleClassifier(self.module, turn.data.classes)

    def restore(self, state, data):
        return ModuleClassifier(self.module, data.classes)


class Spread(nn.Module):
    """Two classes; the logits are +- `scale` times the first value less its middle."""

    def __init__(self, scale=4.0):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        margin = self.scale * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([-margin, margin], 1)


NESTED = {
    "transformed": Transformed(
        Transformed(Transformed(PLAIN, BitDepth(4)), ResizePad()), BitDepth(5)
    ),
    "refusing": Refusing(Refusing(Refusing(PLAIN, share=0.2), share=0.2), share=0.2),
    "squeezing": FeatureSqueezing(
        Refusing(Transformed(PLAIN, BitDepth(4)), share=0.2),
        (BitDepth(1), ResizePad()),
        0.1,
        share=0.2,
    ),
    "smoothing": smoothing(Refusing(Transformed(NOISY, ResizePad()), share=0.2), refuses=True),
    "refusing smoothing": Refusing(smoothing(Transformed(NOISY, BitDepth(4))), share=0.2),
    "mixture": Mixture(
        (Refusing(Transformed(PLAIN, BitDepth(4)), share=0.2), Retrain(PLAIN), smoothing()),
        (0.5, 0.25, 0.25),
    ),
    "wrapped mixture": Refusing(Transformed(Mixture((PLAIN, PLAIN), (0.5, 0.5)), BitDepth(4))),
    "rounded": RoundedScores(smoothing(Transformed(Retrain(PLAIN), BitDepth(4)))),
}


# All of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NESTED)
def test_what_is_nested_three_deep_comes_back_from_its_state_to_the_bit(name):
    strategy, data = NESTED[name], digits()
    player_ = player(strategy)
    strategy.check(player_)
    shown = (data[:5],) if strategy.needs else ()
    model = made(strategy, data, samples=shown)
    again = strategy.restore({k: v.clone() for k, v in model.state().items()}, data)
    state, other = model.state(), again.state()
    assert state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)
    first, second = model.answer(data.x), again.answer(data.x)
    assert torch.equal(first.labels, second.labels) and torch.equal(first.scores, second.scores)
    assert type(model) is type(again)
    assert not again.module.training
    assert ClassOrRefusal().contains(data.x, first).all()


@pytest.mark.parametrize("name", NESTED)
def test_answers_depend_on_no_batch(name):
    strategy, data = NESTED[name], digits(200)
    model = made(strategy, data, samples=(data[:5],))
    whole = model.answer(data.x)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    for rows in order[:60].split(7):
        part = model.answer(data.x[rows])
        torch.testing.assert_close(part.scores, whole.scores[rows], atol=1e-4, rtol=1e-4)
        assert torch.equal(part.labels, whole.labels[rows])
    certain = model.certified(data[:20], L2(0.05))
    if certain is not None:
        parts = [model.certified(data[i : i + 3], L2(0.05)) for i in range(0, 20, 3)]
        assert torch.equal(torch.cat(parts)[:20], certain)


@pytest.mark.parametrize("name", NESTED)
def test_it_trains_the_same_whatever_the_batch_size_and_not_the_same_by_another_seed(name):
    strategy, data = NESTED[name], digits(200)
    shown = (data[:5],)
    states = [
        made(strategy, data, batch_size=size, seed=seed, samples=shown).state()
        for size, seed in ((1000, 3), (17, 3), (1000, 4))
    ]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(states[2][key], value) for key, value in states[0].items())


def test_what_holds_no_module_cannot_be_wrapped():
    data = digits()
    sklearn = Fixed(LogisticRegression(max_iter=500).fit(data.x.flatten(1), data.y))
    labels = Fixed(lambda x: torch.zeros(len(x)).long())
    around = [
        Transformed(sklearn, BitDepth()),
        Refusing(sklearn),
        FeatureSqueezing(sklearn, (BitDepth(),)),
        RandomizedSmoothing(sklearn),
        Mixture((PLAIN, sklearn), (0.5, 0.5)),
    ]
    for strategy in around:
        name = type(strategy).__name__
        with pytest.raises(
            ValueError, match=f"{name} is put around a module, and of=Fixed commits to a model that"
        ):
            strategy.check(player(strategy))
    with pytest.raises(ValueError, match="RoundedScores has nothing to round: of=Fixed"):
        RoundedScores(labels).check(player(labels))
    # Scores are all that rounding takes.
    model = made(RoundedScores(sklearn), data)
    shown = model.answer(data.x)
    assert torch.equal(shown.labels, made(sklearn, data).labels(data.x))
    on_grid(shown.scores, 1)


def test_nothing_is_put_around_rounded_scores():
    for strategy in (
        Refusing(RoundedScores(PLAIN)),
        Mixture((PLAIN, RoundedScores(PLAIN)), (0.5, 0.5)),
    ):
        with pytest.raises(ValueError, match=r"put RoundedScores around (Refusing|Mixture)"):
            strategy.check(player(strategy))


@pytest.mark.parametrize(
    "strategy",
    [Refusing(PLAIN), FeatureSqueezing(PLAIN, (BitDepth(),)), smoothing(refuses=True)],
    ids=lambda s: type(s).__name__,
)
def test_whoever_refuses_must_be_allowed_to(strategy):
    for whole in (strategy, Mixture((PLAIN, Transformed(strategy, BitDepth())), (0.5, 0.5))):
        with pytest.raises(Unplayable, match="actions=Confidence does not allow it; use def"):
            evasion(defender_=defender(whole, actions=Confidence()))


# Transformed -----------------------------------------------------------------------------------


def test_the_transformation_is_there_at_test_time_only():
    data = digits()
    plain, model = made(PLAIN, data), made(Transformed(PLAIN, BitDepth(1)), data)
    x = BitDepth(1)(data.x, chance.keys(0, len(data)))
    assert torch.equal(model.logits(data.x), plain.logits(x))
    for name, value in plain.state().items():
        assert torch.equal(model.state()[f"model.{name}"], value)


def test_coins_of_the_transformation_and_of_the_model_are_independent():
    """The variance of two independent noises adds up, on a model that reads a value off."""
    noise = GaussianNoise(1.0)
    strategy = Transformed(Transformed(Given(Spread(1.0)), noise), noise)
    data = Labelled(torch.full((4000, 1), 0.5), torch.zeros(4000).long(), 2)
    model = strategy.respond(turn_of(strategy, data))
    assert type(model) is RandomClassifier
    found = model.drawn(chance.keys(5, 4000)).logits(data.x)[:, 1].var()
    assert abs(float(found) - 2.0) < 4 * 2.0 * math.sqrt(2 / 4000)  # 4 standard errors


def test_a_transformation_that_changes_the_shape_is_refused_before_training():
    @dataclass(frozen=True)
    class Halved(Transformation):
        def __call__(self, x, key):
            return x[..., ::2]

    class Untrained(ERM):
        def respond(self, turn):
            raise AssertionError("it trained")

    for strategy in (
        Transformed(Untrained(LEARNER), Halved()),
        FeatureSqueezing(Untrained(LEARNER), (BitDepth(), Halved())),
    ):
        with pytest.raises(ValueError, match=r"inputs \[1, 8, 8\], but it returns \[1, 8, 4\]; t"):
            made(strategy)


# Refusing --------------------------------------------------------------------------------------


def reserved(data, share, seed):
    """The examples kept from the inner strategy, as the documentation of `reserve` says."""
    strategy = Refusing(PLAIN, share=share)
    _, kept = strategy._shares(turn_of(strategy, data, seed=seed))
    return kept


def noisy_labels(n=400, seed=0):
    """One feature, of which P(y = 1) = x: the surer a model the rarer its mistakes."""
    draw = chance.uniform(chance.keys(seed, n), (2,))
    return Labelled(draw[:, :1], (draw[:, 1] < draw[:, 0]).long(), 2)


COSTS = [
    Refusal(0.1),
    Refusal(0.25),
    Refusal(0.45),
    CostMatrix(((0.0, 1.0, 0.2), (3.0, 0.0, 0.2))),
    QueryPrice(Refusal(0.2)),
]


@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_the_threshold_is_the_best_of_all_on_the_reserved_share(cost):
    data = noisy_labels()
    strategy = Refusing(Given(Spread()), share=0.5)
    model = strategy.respond(turn_of(strategy, data, cost=cost))
    kept = reserved(data, 0.5, 3)
    confidence, label = Spread()(kept.x).softmax(1).max(1)

    inner = cost.of if isinstance(cost, QueryPrice) else cost
    refusal = inner.on_clean if isinstance(inner, Refusal) else 0.2

    def price(refused):
        return float(torch.where(refused, refusal, inner.answered(label, kept.y)).sum())

    every = torch.cat([confidence, torch.tensor([2.0])])
    best = min(price(confidence < threshold) for threshold in every)
    found = model.labels(kept.x) == REFUSED
    assert price(found) == pytest.approx(best)
    assert 0 < found.sum() < len(kept)


def test_the_dearer_a_refusal_the_fewer_there_are():
    data = noisy_labels(2000)
    thresholds = []
    for price in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6):
        model = made(Refusing(Given(Spread()), share=0.5), data, cost=Refusal(price))
        thresholds.append(float(model.state()["threshold"].exp()))
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[-1] < 0.5, "dearer than any guess between two"
    assert len(set(thresholds)) >= 4


def test_nothing_is_refused_where_a_refusal_is_an_error():
    data = noisy_labels()
    model = made(Refusing(Given(Spread()), share=0.5), data, cost=ErrorRate())
    assert (model.labels(data.x) != REFUSED).all()


def test_who_is_equally_sure_is_refused_alike():
    data = Labelled(torch.zeros(50, 2), (torch.arange(50) % 2), 2)
    for price, refuses in ((0.1, True), (0.9, False)):
        model = made(Refusing(Given(Constant([0.0, 1.0])), share=0.4), data, cost=Refusal(price))
        assert ((model.labels(data.x) == REFUSED) == refuses).all()


def test_the_inner_model_does_not_see_what_is_reserved():
    data = digits(100)

    class Spy(ERM):
        def respond(self, turn):
            seen_.append(turn.data)
            return super().respond(turn)

    seen_ = []
    made(Refusing(Spy(LEARNER, epochs=1), share=0.3), data)
    (own,) = seen_
    kept = reserved(data, 0.3, 3)
    assert (len(own), len(kept)) == (70, 30)
    both = torch.cat([own.x, kept.x]).flatten(1)
    assert torch.equal(both.unique(dim=0), data.x.flatten(1).unique(dim=0))


def test_a_threshold_needs_examples():
    with pytest.raises(
        ValueError, match=r"Refusing\.share = 0\.0 must be between 0 and 1 \(not 0\)"
    ):
        Refusing(PLAIN, share=0.0)
    with pytest.raises(ValueError, match=r"FeatureSqueezing\.share = 0\.0 must be"):
        FeatureSqueezing(PLAIN, (BitDepth(),), share=0.0)


# Feature squeezing -----------------------------------------------------------------------------


def test_squeezing_tells_what_lives_in_the_low_bits():
    """x in {0.1, 0.9}: one bit moves it by 0.1. Attacked to 0.45 or 0.55, by 0.45."""
    honest = torch.where(chance.uniform(chance.keys(0, 200), (1,)) < 0.5, 0.1, 0.9)
    data = Labelled(honest, (honest[:, 0] > 0.5).long(), 2)
    strategy = FeatureSqueezing(Given(Spread()), (BitDepth(1), BitDepth(8)), 0.0, share=0.5)
    model = strategy.respond(turn_of(strategy, data))
    assert torch.equal(model.labels(data.x), data.y)
    attacked = torch.tensor([[0.45], [0.55]])
    assert (model.labels(attacked) == REFUSED).all()
    # The distance of two Bernoullis is twice that of their parameters (logits differ by 8 times x).
    p = [1 / (1 + math.exp(-8 * (v - 0.5))) for v in (0.1, 0.0)]
    assert float(model.state()["threshold"]) == pytest.approx(2 * (p[0] - p[1]), abs=1e-6)


@pytest.mark.parametrize("false_alarms", [0.0, 0.05, 0.3, 1.0])
def test_false_alarms_are_as_many_as_allowed(false_alarms):
    data = noisy_labels(1000)
    strategy = FeatureSqueezing(Given(Spread()), (BitDepth(2),), false_alarms, share=0.5)
    model = strategy.respond(turn_of(strategy, data))
    found = (model.labels(reserved(data, 0.5, 3).x) == REFUSED).float().mean()
    allowed = min(false_alarms, 499 / 500)
    assert float(found) == pytest.approx(allowed, abs=1.5 / 500)
    fresh = (model.labels(noisy_labels(4000, 9).x) == REFUSED).float().mean()
    # Above the (k + 1)th largest of 500 lies a share of Beta(k + 1, 500 - k).
    k = round(allowed * 500)
    low, high = stats.beta.ppf([1e-4, 1 - 1e-4], k + 1, 500 - k)
    assert low - 4 * (low / 4000) ** 0.5 <= float(fresh) <= high + 4 * (high / 4000) ** 0.5


def test_a_white_box_can_differentiate_the_detector():
    data = digits(200)
    model = made(FeatureSqueezing(PLAIN, (ResizePad(0.7),), 0.05, share=0.3), data)
    x = data.x[:20].requires_grad_()
    logits = model.logits(x)
    (gradient,) = torch.autograd.grad((logits[:, 10] - logits[:, :10].amax(1)).sum(), x)
    # Where the draw leaves an input as large as it was, nothing was squeezed: no distance.
    _, distance = model.module.looked(x.detach(), coins(x.detach(), False))
    assert torch.equal(gradient.flatten(1).abs().amax(1) > 0, distance > 0)
    assert (distance > 0).sum() > 10


# Smoothing -------------------------------------------------------------------------------------

STD = 0.5


def line(n=60):
    """Points on a line across the border of `Spread`, labelled by its side: 16 values each."""
    x = torch.full((n, 16), 0.5)
    x[:, 0] = torch.linspace(-1.0, 2.0, n)
    return Labelled(x, (x[:, 0] > 0.5).long(), 2, (-1.0, 2.0))


def smoothed(**fields):
    strategy = smoothing(Given(Spread(100.0)), std=STD, **fields)
    return strategy.respond(turn_of(strategy, line()))


def test_votes_have_the_frequencies_of_the_closed_form():
    """A linear model: a copy is of class 1 with probability Phi(margin / std)."""
    data, n = line(), 4000
    module = smoothed().module
    votes, _ = module.polled(data.x, chance.keys(1, len(data)), n)
    p = stats.norm.cdf((data.x[:, 0] - 0.5).numpy() / STD)
    error = 4 * (p * (1 - p) / n) ** 0.5 + 1 / n
    assert (abs(votes[:, 1].numpy() / n - p) <= error).all()
    assert (votes.sum(1) == n).all()


def test_the_mean_probability_is_that_of_the_same_copies():
    data = line()
    module = smoothed().module
    votes, mean = module.polled(data.x, chance.keys(1, len(data)), 200)
    # Logits of a hundred times the margin: all but certain of every copy.
    torch.testing.assert_close(mean.exp(), votes / 200, atol=0.03, rtol=0)
    torch.testing.assert_close(mean.exp().sum(1), torch.ones(len(data)))


@pytest.mark.parametrize("refuses", [False, True])
def test_the_answer_is_the_majoritys_or_a_refusal_where_the_test_says_so(refuses):
    data = line()
    model = smoothed(samples=40, refuses=refuses, alpha=0.05)
    key = chance.keys(3, len(data))
    labels = model.drawn(key).labels(data.x)
    votes, mean = model.module.polled(data.x, chance.fold(key, 0), 40)
    expected = (votes + 0.1 * mean.exp()).argmax(1)
    if refuses:
        for i, count in enumerate(votes.amax(1).int().tolist()):
            if stats.binomtest(count, 40, 0.5).pvalue > 0.05:
                expected[i] = REFUSED
        assert 0 < (expected == REFUSED).sum() < len(data)
    assert torch.equal(labels, expected)


def test_the_least_separating_votes_are_those_of_the_binomial_test():
    for n in (0, 1, 5, 10, 37, 100):
        for alpha in (0.001, 0.05, 0.5):
            passing = [k for k in range(n // 2 + 1, n + 1) if stats.binomtest(k, n).pvalue <= alpha]
            assert separating(n, alpha) == min(passing, default=n + 1)


def test_the_bound_is_that_of_clopper_and_pearson():
    # All of n: alpha = p^n. None: 0. 10 of 20 at 0.025: 0.27196, a textbook's (two-sided 95 %).
    found = least(torch.tensor([100, 0]), 100, 0.001).tolist()
    assert found[0] == pytest.approx(0.001 ** (1 / 100)) and found[1] == 0.0
    assert float(least(torch.tensor([10]), 20, 0.025)) == pytest.approx(0.27196, abs=1e-5)
    for k in (1, 30, 99):
        low = float(least(torch.tensor([k]), 100, 0.01))
        assert stats.binom.sf(k - 1, 100, low) == pytest.approx(0.01)
        assert stats.binom.cdf(k - 1, 100, at_least(k, 100, 0.01)) == pytest.approx(0.01)
    assert at_least(101, 100, 0.01) == 1.0


def test_radii_are_those_of_the_theory():
    """On a linear model Phi^-1(p) is margin / std: only the two bounds' room is lost."""
    data = line()
    n = 4000
    model = smoothed(samples=1001, selection=50, estimation=n, alpha=0.001)
    label, radius = model.radii(data.x)
    margin = (data.x[:, 0] - 0.5).abs().double()
    lost = STD * stats.norm.ppf(at_least(501, 1001, 0.0005))
    for side, m, r in zip(label == data.y, margin.tolist(), radius.tolist(), strict=True):
        if not side or m > 2.5 * STD:
            continue
        p = stats.norm.cdf(m / STD)
        # Within 5 deviations of the count, and of the interval around it.
        deviation = math.sqrt(p * (1 - p) / n)
        lowest = STD * stats.norm.ppf(max(p - 10 * deviation - 10 / n, 1e-9)) - lost
        highest = STD * stats.norm.ppf(min(p + 2 * deviation, 1 - 1e-4)) - lost
        assert lowest <= r <= highest
    # However far the border: no more than when all of n agree.
    most = STD * stats.norm.ppf(0.0005 ** (1 / n)) - lost
    assert radius.max() <= most


def test_a_certificate_is_wrong_no_more_often_than_it_says():
    """The estimate alone is wrong if it exceeds Phi(margin / std): alpha / 2 of the time."""
    alpha, n, tries = 0.2, 60, 4000
    strategy = smoothing(Given(Spread(100.0)), std=STD, alpha=alpha, estimation=n, samples=10**6)
    # A million copies decide right at any probability above 1/2: the paper's case.
    margin, x = 0.3, torch.full((tries, 16), 0.5)
    x[:, 0] += margin
    x[:, 1] = torch.linspace(-1, 2, tries)  # other coins for each, the same margin
    data = Labelled(x, torch.ones(tries).long(), 2, (-1.0, 2.0))
    model = strategy.respond(turn_of(strategy, data))
    assert strategy.enough == 500_001
    label, radius = model.radii(x)
    wrong = float(((label == 1) & (radius > margin)).double().mean())
    assert wrong <= alpha / 2 + 4 * math.sqrt(alpha / 2 / tries)
    assert wrong > 0.02, "so loose a bound would certify nothing"


def test_a_certified_vote_is_right_as_often_as_it_says_at_the_worst_point():
    """A ball that just fits: at its edge the finite vote, not the ideal one, must still hold."""
    alpha = 0.1
    model = smoothed(samples=21, alpha=alpha, estimation=20_000, selection=50)
    x = torch.full((1, 16), 0.5)
    x[:, 0] += 0.6
    label, radius = model.radii(x)
    assert label == 1 and radius > 0.2
    moved = x.clone()
    moved[:, 0] -= radius.float()
    tries = 3000
    drawn = model.drawn(chance.keys(8, tries))
    wrong = (drawn.labels(moved.expand(tries, -1)) != 1).double().mean()
    assert float(wrong) <= alpha / 2 + 4 * math.sqrt(alpha / 2 / tries)
    assert float(wrong) > alpha / 4, "the bound is tight up to the estimate's room"


def test_balls_are_certified_by_the_ball_of_l2_around_them():
    data = line()
    model = smoothed(estimation=2000, selection=50, samples=501)
    label, radius = model.radii(data.x)
    right = label == data.y
    for actions, eps in ((L2(0.3), 0.3), (L1(0.3), 0.3), (Linf(0.075), 0.3)):  # 16 values: 4 times
        found = model.certified(data, replace(actions, box=data.box))
        clear = (radius - eps).abs() > 1e-4
        assert torch.equal(found[clear], (right & (radius >= eps))[clear])
        assert found.any() and not found.all()
    with pytest.raises(ValueError, match="not L0; use such actions for the attacker, or estimatio"):
        model.certified(data, L0(1))
    assert smoothed(estimation=0).certified(data, L0(1)) is None


def test_its_gradient_is_that_of_the_mean_probability_and_parts_do_not_matter(monkeypatch):
    data = digits(30)
    model = made(smoothing(samples=8), data)
    key = chance.keys(2, 30)

    def slope(cost):
        x = data.x.clone().requires_grad_()
        cost(model.logits_by(key, x), x).sum().backward()
        return x.grad.flatten(1)

    def mean(logits, x):
        _, log_mean = model.module.polled(x, chance.fold(key, 0), 8)
        return log_mean.exp().gather(1, data.y[:, None])

    found = slope(lambda logits, x: Negation(ErrorRate()).surrogate(logits, data.y))
    direction = slope(mean)
    clear = (direction.norm(dim=1) > 1e-6) & (found.norm(dim=1) > 1e-6)
    cosine = torch.cosine_similarity(found[clear], direction[clear])
    assert clear.sum() > 20 and (cosine > 0.999).all()
    monkeypatch.setattr("arena.defenses.smoothing.together", lambda device: 60)
    again = slope(lambda logits, x: Negation(ErrorRate()).surrogate(logits, data.y))
    torch.testing.assert_close(again, found, atol=1e-5, rtol=1e-4)


def test_noise_is_not_added_twice():
    twice = RandomizedSmoothing(ERM(Preprocessing(LEARNER, GaussianNoise(0.25)), epochs=1))
    with pytest.raises(Unplayable, match="adds noise to the inputs of a model that adds its own"):
        evasion(defender_=defender(twice))
    model = made(NOISY)
    assert type(model) is ModuleClassifier, "training on noise leaves none in the model"


def test_training_on_noise_makes_answers_to_noise_better():
    data = digits(600)
    test = Digits().load()[0][600:1200]
    noise = GaussianNoise(0.5)
    noisy = noise(test.x, chance.keys(4, len(test)))
    errors = [
        float((made(trainer, data).labels(noisy) != test.y).float().mean())
        for trainer in (
            ERM(LEARNER, epochs=40, lr=0.01),
            AugmentedTraining(LEARNER, epochs=40, lr=0.01, augmentation=noise),
        )
    ]
    assert errors[1] < errors[0] - 0.05  # 600 examples: a standard error of 0.02


# Certifying ------------------------------------------------------------------------------------


def test_a_linear_network_is_certified_exactly_where_no_move_fools_it():
    """Intervals are exact on it, two classes: the margin less eps times the dual norm."""
    data = Labelled(chance.uniform(chance.keys(0, 300), (6,)), torch.arange(300) % 2, 2)
    strategy = Certifying(ERM(MLP(()), epochs=1), Interval())
    model = strategy.restore(MLP(()).build((6,), 2, seed=1).state_dict(), data)
    weight, bias = (p.detach() for p in model.module.parameters())
    sign = 2.0 * data.y - 1.0
    gradient = weight[1] - weight[0]
    # The box cuts the ball: each value goes as far as it may against the class.
    way = (-sign[:, None] * gradient.sign() * 0.1 + data.x).clamp(0, 1)
    worst = sign * (way @ gradient + bias[1] - bias[0])
    clear = worst.abs() > 1e-3
    found = model.certified(data, Linf(0.1))
    assert torch.equal(found[clear], (worst > 0)[clear]) and found.any() and not found.all()


def test_certifying_plays_and_refuses_what_it_cannot_bound():
    defending = defender(Certifying(PLAIN, Interval()))
    match = evasion(attacker(PGD(5, 0.3), actions=Linf(0.005)), defending)
    metrics = last(match).metrics
    assert metrics["attacked_error"] <= metrics["certified_error"] < 1.0
    with pytest.raises(ValueError, match="no bounds over L0"):
        last(evasion(attacker(Honest(), actions=L0(2)), defending))
    with pytest.raises(ValueError, match="not the SmoothedClassifier of RandomizedSmoothing"):
        made(Certifying(smoothing(), Interval()))


# Rounded scores --------------------------------------------------------------------------------


def on_grid(scores, decimals):
    units = scores.exp().double() * 10**decimals
    assert (units - units.round()).abs().max() < 1e-5 * 10**decimals
    assert ((units.round().sum(1) - 10**decimals).abs() == 0).all()


@pytest.mark.parametrize("decimals", [0, 1, 2, 4])
def test_rounding_keeps_the_sum_and_the_order(decimals):
    p = torch.distributions.Dirichlet(torch.ones(10) * 0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = p.sample((500,))
    found = rounded(rows, decimals)
    units = found * 10**decimals
    torch.testing.assert_close(units, units.round())
    assert (units.round().sum(1) == 10**decimals).all()
    assert (found - rows.double()).abs().max() < 10.0**-decimals
    for row, whole in zip(found, rows, strict=True):
        order = whole.argsort()
        assert (row[order].diff() >= -1e-12).all()


def test_a_black_box_sees_rounded_scores_and_a_white_box_the_logits():
    data, plain = digits(), made(PLAIN)
    for of in (PLAIN, Mixture((PLAIN,), (1.0,)), Refusing(PLAIN)):
        model = made(RoundedScores(of, 1))
        knowledge, rows = Knowledge.black_box("scores", 5), torch.arange(len(data))
        view = ScoreView("defender", knowledge, {}, model, Ledger(len(data), 5))
        on_grid(view.scores(data.x, rows), 1)
        inner = made(of)
        assert torch.equal(model.labels(data.x), inner.labels(data.x))
        assert torch.equal(model.logits(data.x), inner.logits(data.x))
        answer = model.answer(data.x)
        on_grid(answer.scores, 1)
        assert torch.equal(answer.labels, inner.labels(data.x))
    assert torch.equal(made(RoundedScores(PLAIN)).logits(data.x), plain.logits(data.x))


def test_square_climbs_on_rounded_scores_less_well():
    """The fewer decimals, the fewer of its proposals it can tell apart."""

    def error(strategy):
        knowledge = Knowledge.black_box("scores", 60)
        match = evasion(
            attacker(Square(59), knowledge, Linf(0.12)), defender(strategy), examples=300
        )
        return last(match).metrics["attacked_error"]

    exact, coarse = error(PLAIN), error(RoundedScores(PLAIN, 0))
    assert coarse <= exact


def test_a_certificate_outlives_rounding():
    data = line()
    strategy = smoothing(Given(Spread(100.0)), std=STD, estimation=2000, samples=501)
    plain = strategy.respond(turn_of(strategy, data)).certified(data, L2(0.2))
    shown = RoundedScores(strategy).respond(turn_of(strategy, data)).certified(data, L2(0.2))
    assert torch.equal(plain, shown) and shown.any()


# Mixtures --------------------------------------------------------------------------------------


def constants(weights, classes=3):
    """Member i always answers class i."""
    members = []
    for i in range(len(weights)):
        logits = [0.0] * classes
        logits[i] = 50.0
        members.append(Given(Constant(logits)))
    return Mixture(tuple(members), weights)


def test_members_are_drawn_by_their_weights():
    n, weights = 6000, (0.2, 0.0, 0.8)
    data = Labelled(
        torch.rand(n, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(n).long(), 3
    )
    mixture = constants(weights)
    model = mixture.respond(turn_of(mixture, data))
    for answer in (model.labels(data.x), model.drawn(chance.keys(1, n)).labels(data.x)):
        share = answer.bincount(minlength=3) / n
        assert share[1] == 0
        assert abs(float(share[0]) - 0.2) < 4 * math.sqrt(0.2 * 0.8 / n)
    first, again = (model.drawn(chance.keys(k, n)).labels(data.x) for k in (1, 2))
    # Fresh coins: both draws agree with probability 0.2^2 + 0.8^2.
    assert abs(float((first == again).float().mean()) - 0.68) < 4 * math.sqrt(0.68 * 0.32 / n)


def test_only_the_member_drawn_is_evaluated():
    class Counting(nn.Module):
        def forward(self, x):
            rows.append(len(x))
            return x[:, :2]

    mixture = Mixture((Given(Counting()), Given(Counting())), (0.5, 0.5))
    data = Labelled(chance.uniform(chance.keys(0, 100), (2,)), torch.zeros(100).long(), 2)
    rows = []
    model = mixture.respond(turn_of(mixture, data))
    rows.clear()
    torch.testing.assert_close(model.logits(data.x), data.x.log_softmax(1))
    assert sum(rows) == 100 and len(rows) == 2


def test_members_with_the_same_recipe_have_seeds_of_their_own():
    state = made(Mixture((PLAIN, PLAIN), (0.5, 0.5))).state()
    names = [name for name in state if name.startswith("members.0.")]
    assert names
    assert any(
        not torch.equal(state[name], state[name.replace("members.0.", "members.1.")])
        for name in names
    )


def test_some_members_may_refuse():
    data = digits(60)
    mixture = Mixture(
        (Given(Constant([0.0] * 10 + [1.0])), Given(Constant([1.0] + [0.0] * 9))), (0.5, 0.5)
    )
    model = mixture.respond(turn_of(mixture, data))
    answer = model.answer(data.x)
    assert set(answer.labels.tolist()) == {REFUSED, 0}
    assert answer.scores.shape == (60, 11) and ClassOrRefusal().contains(data.x, answer).all()
    assert model.answer(data.x[:1]).scores.shape == (1, 11)


def test_what_is_known_of_a_mixture_is_what_its_members_share():
    assert Mixture((PLAIN, PLAIN), (0.5, 0.5)).facts() == PLAIN.facts()
    assert Mixture((PLAIN, NOISY), (0.5, 0.5)).facts() == {"architecture": LEARNER}
    assert Mixture((PLAIN, Given(Spread())), (0.5, 0.5)).facts() == {}
    assert Mixture((PLAIN, Retrain(PLAIN)), (0.5, 0.5)).needs == Retrain(PLAIN).needs


def test_averaging_finds_more_against_a_mixture_than_single_draws():
    """What one draw says, the other member undoes: PGD stops at the first draw it fools."""
    mixture = Mixture((PLAIN, PLAIN, PLAIN), (0.4, 0.3, 0.3))
    data = digits(100)
    model = made(mixture, data)
    costs = []
    for attack in (PGD(10, 0.2), EOT(PGD(10, 0.2), draws=6)):
        turn = turn_on(seen(model, data), attack, data, Linf(0.08))
        moved = attack.respond(turn)
        # The expected error over the mixture's coins, exactly.
        wrong = torch.stack(
            [member(moved).argmax(1) != data.y for member in model.module.members]
        ).double()
        costs.append(float((wrong * torch.tensor([[0.4], [0.3], [0.3]])).sum(0).mean()))
    assert costs[1] > costs[0] + 0.02


def test_weights_are_a_distribution_over_the_members():
    with pytest.raises(ValueError, match=r"sum to 0\.9; make it 1"):
        Mixture((PLAIN, PLAIN), (0.5, 0.4))
    with pytest.raises(ValueError, match="2 strategies and 1 weights"):
        Mixture((PLAIN, PLAIN), (1.0,))
    with pytest.raises(ValueError, match="0 strategies"):
        Mixture((), ())
    with pytest.raises(ValueError, match="must be at least 0"):
        Mixture((PLAIN, PLAIN), (1.5, -0.5))
    Mixture((PLAIN,) * 3, (1 / 3, 1 / 3, 1 / 3))


# Games -----------------------------------------------------------------------------------------

PLAYED = {
    "transformed": (Transformed(PLAIN, BitDepth(3)), BPDA(PGD(5, 0.3))),
    "refusing": (Refusing(PLAIN), PGD(5, 0.3)),
    "squeezing": (FeatureSqueezing(PLAIN, (BitDepth(1),)), PGD(5, 0.3)),
    "smoothing": (smoothing(estimation=400), PGD(5, 0.3)),
    "smoothing refuses": (smoothing(estimation=400, refuses=True, alpha=0.05), PGD(5, 0.3)),
    "rounded": (RoundedScores(smoothing(estimation=400)), PGD(5, 0.3)),
    "mixture": (Mixture((PLAIN, NOISY), (0.5, 0.5)), EOT(PGD(5, 0.3), draws=3)),
}


@pytest.mark.parametrize("name", PLAYED)
def test_a_match_on_digits(name):
    strategy, attack = PLAYED[name]
    cost = Refusal(0.3)
    defending = defender(strategy, actions=ClassOrRefusal(), cost=cost)

    def metrics(attack, eps):
        attacking = attacker(attack, actions=L2(eps), cost=Negation(cost))
        return last(evasion(attacking, defending)).metrics

    honest, attacked = metrics(Honest(), 0.1), metrics(attack, 0.6)
    assert honest["clean_error"] < 0.5 and attacked["attacked_error"] > honest["attacked_error"]
    refuses = "refus" in name or name == "squeezing"
    assert refuses or attacked["refused"] == 0.0
    certifies = "smoothing" in name or name == "rounded"
    assert ("certified_error" in attacked) == certifies
    for found in (honest, attacked) if certifies else ():
        assert found["certified_error"] >= found["attacked_error"]
    assert not certifies or honest["certified_error"] < 1.0 or name == "smoothing refuses"
