"""Intervals against simulation: how often they cover the mean they claim to."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from arena.estimate import Estimate, over_seeds

REPLICATIONS = 2000
MEAN = 0.3


def coverage(draw, level=0.95, seed=0):
    """How many of many estimates from independent draws cover the true mean."""
    generator = np.random.default_rng(seed)
    covered = 0
    for _ in range(REPLICATIONS):
        found = over_seeds(draw(generator), level)
        covered += found.low <= MEAN <= found.high
    return covered


def consistent(covered, level):
    """Within the central 1 - 1e-6 of the binomial law of a true coverage of `level`."""
    low, high = stats.binom.interval(1 - 1e-6, REPLICATIONS, level)
    return low <= covered <= high


def drawn(seeds, examples, between, within=1.0):
    """Seeds with an effect of their own, and examples inside them."""

    def draw(generator):
        effect = between * generator.standard_normal((seeds, 1))
        return list(MEAN + effect + within * generator.standard_normal((seeds, examples)))

    return draw


@pytest.mark.parametrize("level", [0.95, 0.5])
@pytest.mark.parametrize(
    ("seeds", "examples", "between"), [(2, 20, 1.0), (5, 20, 1.0), (5, 20, 0.0), (12, 3, 0.3)]
)
def test_over_seeds_covers_the_mean_as_often_as_it_says(seeds, examples, between, level):
    """Means of normal seeds are normal: Student's interval is exact."""
    assert consistent(coverage(drawn(seeds, examples, between), level), level)


def test_counting_examples_as_independent_would_not():
    """The simulation can tell: pooled, 100 dependent values claim far too much."""

    def pooled(generator):
        return [np.concatenate(drawn(5, 20, 1.0)(generator))]

    assert coverage(pooled) < 0.6 * REPLICATIONS


def test_a_single_seed_covers_by_its_examples():
    # The normal interval with an estimated deviation: P(|t_299| < 1.96) instead of 0.95.
    exact = float(stats.t.cdf(stats.norm.ppf(0.975), 299) * 2 - 1)
    assert consistent(coverage(drawn(1, 300, 0.0)), exact)


def test_seeds_of_different_sizes_count_the_same():
    samples = [np.zeros(3), np.ones(300)]
    assert over_seeds(samples).mean == 0.5


def test_by_hand():
    # Means 1 and 3: deviation sqrt(2), standard error 1, t_1(0.975) = tan(0.475 pi).
    found = over_seeds([np.array([0.0, 2.0]), np.array([3.0])])
    assert found.mean == 2.0
    assert found.half == pytest.approx(math.tan(0.475 * math.pi))
    assert (found.low, found.high) == (found.mean - found.half, found.mean + found.half)
    # One seed 0, 0, 1, 1: variance 1/3, standard error sqrt(1/12).
    one = over_seeds([np.array([0.0, 0.0, 1.0, 1.0])])
    assert one.mean == 0.5
    assert one.half == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(1 / 12))


values = st.lists(st.floats(-100, 100), min_size=2, max_size=6)
several = st.lists(values, min_size=1, max_size=5)


@given(several, st.floats(-50, 50), st.floats(0.1, 10))
def test_it_moves_and_scales_with_the_data(samples, shift, scale):
    samples = [np.array(sample) for sample in samples]
    here = over_seeds(samples)
    there = over_seeds([scale * sample + shift for sample in samples])
    assert there.mean == pytest.approx(scale * here.mean + shift, abs=1e-6)
    assert there.half == pytest.approx(scale * here.half, abs=1e-6)


@given(several, st.randoms())
def test_the_order_of_seeds_and_examples_does_not_matter(samples, shuffler):
    here = over_seeds([np.array(sample) for sample in samples])
    for sample in samples:
        shuffler.shuffle(sample)
    shuffler.shuffle(samples)
    there = over_seeds([np.array(sample) for sample in samples])
    assert there.mean == pytest.approx(here.mean, abs=1e-9)
    assert there.half == pytest.approx(here.half, abs=1e-6)


@given(several, st.data())
def test_examples_without_a_cost_are_left_out(samples, data):
    full = [np.array(sample) for sample in samples]
    holed = []
    for sample in full:
        at = data.draw(st.lists(st.integers(0, len(sample)), max_size=3))
        holed.append(np.insert(sample, at, np.nan))
    a, b = over_seeds(full), over_seeds(holed)
    assert b.mean == pytest.approx(a.mean, abs=1e-9)
    assert b.half == pytest.approx(a.half, abs=1e-9)


@given(several, st.floats(0.05, 0.9), st.floats(0.01, 0.09))
def test_more_certainty_takes_more_room(samples, level, more):
    samples = [np.array(sample) for sample in samples]
    assert over_seeds(samples, level).half <= over_seeds(samples, level + more).half


def test_what_cannot_be_told_is_nan():
    one = over_seeds([np.array([0.25])])
    assert one.mean == 0.25 and math.isnan(one.half) and math.isnan(one.low)
    assert math.isnan(over_seeds([np.array([np.nan, 0.25])]).half)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_seed_without_a_single_cost_leaves_nothing_to_tell(seeds):
    samples = [np.full(3, np.nan), *[np.zeros(3)] * (seeds - 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = over_seeds(samples)
    assert math.isnan(found.mean) and math.isnan(found.half)


def test_identical_seeds_leave_no_room():
    assert over_seeds([np.ones(4)] * 3) == Estimate(1.0, 0.0)


def test_as_text():
    assert str(Estimate(0.12345, 0.0321)) == "0.123 ± 0.032"
    assert str(Estimate(0.5, float("nan"))) == "0.500"
