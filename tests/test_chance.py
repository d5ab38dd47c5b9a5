"""Keyed random numbers against a SplitMix64 written out in Python's own integers."""

import hashlib
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from arena import chance

N = 1 << 16
SIGMAS = 5.0  # a fair generator exceeds this once in 1.7 million figures; the seeds are fixed
LEAST_P = 1e-6
SEEDS = (0, 1, 12345, (1 << 63) - 1)

word = st.integers(-(1 << 63), (1 << 63) - 1)


def mix(z):
    """SplitMix64's finaliser, Steele, Lea & Flood 2014, figure 16, in arbitrary precision."""
    mask = (1 << 64) - 1
    z &= mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


GOLDEN = 0x9E3779B97F4A7C15


def key_of(*values):
    return torch.tensor(values, dtype=torch.int64)


def test_uniform_is_splitmix64():
    # The first five outputs for the seed 1234567, as published with the reference C code.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    found = chance.uniform(key_of(1234567), (5,))[0]
    assert found.tolist() == [(number >> 40) / 2**24 for number in published]


@given(word, st.integers(1, 9))
def test_uniform_is_the_top_24_bits_of_the_mixed_counter(key, n):
    found = chance.uniform(key_of(key), (n,))[0].tolist()
    assert found == [(mix(key + i * GOLDEN) >> 40) / 2**24 for i in range(1, n + 1)]


@given(word, st.integers(0, 1 << 62))
def test_fold_agrees_with_big_integers_for_a_number_and_for_a_tensor(key, step):
    expected = mix(mix(key + GOLDEN) + (step + 1) * GOLDEN)
    for given_step in (step, key_of(step)):
        assert int(chance.fold(key_of(key), given_step)) % (1 << 64) == expected


@given(st.lists(word, min_size=1, max_size=12), st.data())
def test_splitting_the_batch_changes_nothing(values, data):
    keys = key_of(*values)
    cut = data.draw(st.integers(0, len(values)))
    for draw in (
        lambda k: chance.uniform(k, (2, 3)),
        lambda k: chance.normal(k, (3,)),
        lambda k: chance.integers(k, 7, (2,)),
        lambda k: chance.fold(k, 5),
    ):
        whole = draw(keys)
        assert torch.equal(torch.cat([draw(keys[:cut]), draw(keys[cut:])]), whole)
        order = torch.arange(len(values) - 1, -1, -1)
        assert torch.equal(draw(keys[order]), whole[order])


def test_an_examples_key_does_not_depend_on_how_many_there_are():
    assert torch.equal(chance.keys(3, 10), chance.keys(3, 100)[:10])


def test_more_numbers_begin_with_the_fewer():
    key = chance.keys(0, 4)
    assert torch.equal(chance.uniform(key, (3,)), chance.uniform(key, (8,))[:, :3])
    assert torch.equal(chance.uniform(key), chance.uniform(key, (8,))[:, 0])


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_are_distinct(seed):
    # One seed's keys are a bijection of a counter: no two can be equal.
    assert len(chance.keys(seed, N).unique()) == N


def test_keys_of_other_seeds_are_others():
    # 256 thousand words of 64 bits: a collision has probability 2^-29.
    keys = torch.cat([chance.keys(seed, N) for seed in SEEDS])
    assert len(keys.unique()) == len(keys)


def test_shapes_dtypes_and_empty_draws():
    key = chance.keys(0, 3)
    assert chance.uniform(key).shape == chance.normal(key).shape == (3,)
    assert chance.uniform(key, (2, 4)).shape == (3, 2, 4)
    assert chance.uniform(key, (2, 0)).shape == (3, 2, 0)
    assert chance.uniform(key[:0], (2,)).shape == (0, 2)
    assert chance.uniform(key).dtype == chance.normal(key).dtype == torch.float32
    assert chance.integers(key, 5).dtype == key.dtype == torch.int64


def within(found, expected, sigma, n):
    assert abs(float(found) - expected) < SIGMAS * sigma / math.sqrt(n), (found, expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("across", ["examples", "numbers"])
def test_moments_and_laws(seed, across):
    """Across the keys of a seed, one number each, and along the numbers of one key."""
    examples, shape = (N, ()) if across == "examples" else (1, (N,))
    key = chance.keys(seed, examples)
    u = chance.uniform(key, shape).flatten().double()
    assert u.min() >= 0.0 and u.max() < 1.0
    within(u.mean(), 1 / 2, math.sqrt(1 / 12), N)
    within(((u - 0.5) ** 2).mean(), 1 / 12, math.sqrt(1 / 180), N)  # var = 1/80 - 1/144
    assert stats.kstest(u, "uniform").pvalue > LEAST_P
    z = chance.normal(key, shape).flatten().double()
    assert z.isfinite().all()
    within(z.mean(), 0.0, 1.0, N)
    within((z**2).mean(), 1.0, math.sqrt(2), N)
    within((z**3).mean(), 0.0, math.sqrt(15), N)
    within((z**4).mean(), 3.0, math.sqrt(96), N)  # E z^8 - 9
    assert stats.kstest(z, "norm").pvalue > LEAST_P
    for high in (2, 10, 1000):
        drawn = chance.integers(key, high, shape).flatten()
        assert drawn.min() >= 0 and drawn.max() < high
        counts = drawn.bincount(minlength=high).double()
        assert stats.chisquare(counts).pvalue > LEAST_P


@given(word, st.integers(1, (1 << 24) - 1))
def test_integers_stay_below_their_bound(key, high):
    drawn = chance.integers(key_of(key), high, (8,))
    assert ((drawn >= 0) & (drawn < high)).all()


def test_the_largest_uniform_number_times_the_largest_bound_stays_below_it(monkeypatch):
    monkeypatch.setattr(chance, "uniform", lambda key, shape=(): torch.tensor([1 - 2.0**-24]))
    for high in (1, 3, 10, (1 << 24) - 1):
        assert int(chance.integers(key_of(0), high)) == high - 1


def test_a_bound_per_key():
    high = torch.tensor([1, 2, 3, 1000])
    keys = chance.keys(0, 4)
    drawn = chance.integers(keys, high, (200,))
    for row, bound in enumerate(high.tolist()):
        assert torch.equal(drawn[row], chance.integers(keys[row : row + 1], bound, (200,))[0])
    assert torch.equal(drawn.amax(1) < high, torch.ones(4, dtype=torch.bool))


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


@pytest.mark.parametrize("seed", SEEDS)
def test_folded_streams_are_independent_of_each_other_and_of_their_key(seed):
    keys = chance.keys(seed, N)
    streams = [chance.uniform(keys)]
    streams += [chance.uniform(chance.fold(keys, step)) for step in (-1, 0, 1, 2, 1000)]
    streams += [chance.uniform(chance.fold(chance.fold(keys, 0), 1))]
    streams += [chance.normal(keys), chance.uniform(keys, (2,))[:, 1]]
    for i, a in enumerate(streams):
        assert abs(correlation(a[1:], a[:-1])) < SIGMAS / math.sqrt(N)  # neighbours
        for b in streams[:i]:
            assert abs(correlation(a, b)) < SIGMAS / math.sqrt(N)


def test_seeds_that_differ_by_one_are_unrelated():
    a, b = (chance.uniform(chance.keys(seed, N)) for seed in (7, 8))
    assert abs(correlation(a, b)) < SIGMAS / math.sqrt(N)
    assert abs(correlation(a[1:], b[:-1])) < SIGMAS / math.sqrt(N)


def test_pairs_fill_the_square():
    u = chance.uniform(chance.keys(1, N), (2,))
    cells = (u[:, 0] * 16).long() * 16 + (u[:, 1] * 16).long()
    assert stats.chisquare(cells.bincount(minlength=256).double()).pvalue > LEAST_P


def test_each_bit_of_a_key_moves_half_the_bits_of_a_fold():
    keys = chance.keys(5, 2000)
    for bit in range(64):
        flipped = keys ^ (1 << bit if bit < 63 else -(1 << 63))
        changed = chance.fold(keys, 0) ^ chance.fold(flipped, 0)
        bits = torch.stack([(changed >> i) & 1 for i in range(64)]).double()
        within(bits.mean(), 1 / 2, 1 / 2, bits.numel())


PARTS = (3, "defender", ("a", 1.5, None), True)


def test_seed_of_is_the_head_of_a_hash_of_the_repr():
    digest = hashlib.sha256(b"(3, 'defender', ('a', 1.5, None), True)").digest()
    assert chance.seed_of(*PARTS) == int.from_bytes(digest[:8], "big") >> 1


def test_seed_of_is_the_same_in_another_process():
    command = f"from arena import chance; print(chance.seed_of(*{PARTS!r}))"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    said = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, env=environment, check=True
    )
    assert int(said.stdout) == chance.seed_of(*PARTS)


@settings(max_examples=50)
@given(st.lists(st.integers() | st.text() | st.booleans(), max_size=4))
def test_seed_of_fits_a_generator_and_tells_parts_apart(parts):
    seed = chance.seed_of(*parts)
    assert 0 <= seed < 1 << 63
    torch.Generator().manual_seed(seed)
    assert seed != chance.seed_of(*parts, 0)
    assert seed != chance.seed_of(tuple(parts))


def test_seed_of_does_not_confuse_neighbours():
    assert chance.seed_of(1, 23) != chance.seed_of(12, 3)
    assert chance.seed_of("1") != chance.seed_of(1)
    assert len({chance.seed_of(0, i) for i in range(10_000)}) == 10_000
