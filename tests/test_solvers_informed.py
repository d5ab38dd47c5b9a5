"""Informed attackers: closed forms, weak duality, garbled probes, one attack per example."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.solvers.informed import glimpse, per_example, through_probe
from arena.solvers.zero_sum import solve

MATCHING = np.eye(2)  # the defender is right where the attack was made for the other model
GENERATORS = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed))


def accuracies(generator, models, attacks, examples):
    """Per-example outcomes, 0 or 1, hence with many ties."""
    return (generator.random((models, attacks, examples)) < generator.random()).astype(float)


def channel(generator, models, signals):
    return generator.dirichlet(np.ones(signals) / 2, models)


def test_a_glimpse_of_matching_pennies():
    # Seen a quarter of the time and then lost, else a coin: 3/4 x 1/2.
    found = through_probe(MATCHING, glimpse(2, 0.25))
    assert found.value == pytest.approx(0.375)
    assert found.mixture == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_a_noisy_probe_of_matching_pennies(noise):
    # The attacker follows the signal, so that the defender is right where the signal is wrong.
    found = through_probe(MATCHING, [[1 - noise, noise], [noise, 1 - noise]])
    assert found.value == pytest.approx(noise)
    assert found.gap <= 1e-12


@settings(max_examples=20)
@given(GENERATORS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_probes_go_from_the_value_to_the_white_box_and_garbling_never_hurts(
    generator, models, attacks, signals
):
    u = generator.integers(0, 4, (models, attacks)) / 4
    shown = channel(generator, models, signals)
    found, at_once, seen = through_probe(u, shown), solve(u).value, u.min(1).max()
    assert found.gap <= 1e-9
    assert seen - 1e-9 <= found.value <= at_once + 1e-9
    garbled = shown @ channel(generator, signals, 3)
    assert through_probe(u, garbled).value >= found.value - 1e-9
    assert through_probe(u, np.eye(models)).value == pytest.approx(seen)
    assert through_probe(u, np.ones((models, 1))).value == pytest.approx(at_once)


@settings(max_examples=10)
@given(GENERATORS)
def test_the_knowledge_curve_falls_and_is_convex(generator):
    u = generator.random((3, 4))
    curve = np.array([through_probe(u, glimpse(3, share)).value for share in np.linspace(0, 1, 6)])
    # For each mixture it is a falling line; the best of lines is convex.
    assert (np.diff(curve) <= 1e-9).all()
    assert (np.diff(curve, 2) >= -1e-9).all()


def test_a_matrix_of_means_overstates_a_mixture():
    # Attack j breaks model j on both examples, and the other model on example j.
    z = np.ones((2, 2, 2))
    for j in range(2):
        z[j, j] = 0
        z[1 - j, j, j] = 0
    # u = [[0, 1/2], [1/2, 0]]: with one attack for all examples, mixing seems to gain 1/4 ...
    assert z.mean(2).min(1).max() == 0
    assert solve(z.mean(2)).value == pytest.approx(1 / 4)
    # ... but on example j attack j breaks both.
    found = per_example(z)
    assert found.value == pytest.approx(0)
    assert found.replies == pytest.approx(np.eye(2))
    # Where it breaks nothing else, mixing does gain, against both attackers.
    z[[1, 0], [0, 1], [0, 1]] = 1
    assert z.min(1).mean(1).max() == 0
    assert per_example(z).value == pytest.approx(1 / 2)


@settings(max_examples=15)
@given(GENERATORS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 30))
def test_one_attack_per_example(generator, models, attacks, examples):
    z = accuracies(generator, models, attacks, examples)
    answer = per_example(z)
    assert answer.gap <= 1e-9
    assert z.min(1).mean(1).max() - 1e-9 <= answer.value <= solve(z.mean(2)).value + 1e-9
    assert (answer.mixture @ z.reshape(models, -1)).reshape(attacks, examples).min(
        0
    ).mean() == pytest.approx(answer.value)
    assert answer.replies.sum(1) == pytest.approx(np.ones(examples))
    # One example is a matrix game; examples counted twice change nothing.
    assert per_example(z[:, :, :1]).value == pytest.approx(solve(z[:, :, 0]).value, abs=1e-9)
    twice = np.concatenate([z, z], axis=2)
    assert per_example(twice).value == pytest.approx(answer.value, abs=1e-9)


def test_small_games_against_every_assignment_of_attacks():
    # With A attacks and E examples there are A^E assignments: a matrix game's columns.
    z = np.random.default_rng(3).random((3, 2, 4))
    columns = [
        z[:, [(code >> e) & 1 for e in range(4)], range(4)].mean(axis=1) for code in range(16)
    ]
    assert per_example(z).value == pytest.approx(solve(np.stack(columns, axis=1)).value)


def test_the_interior_point_method_agrees_with_the_simplex(monkeypatch):
    z = accuracies(np.random.default_rng(5), 5, 4, 200)
    simplex = per_example(z)
    monkeypatch.setattr("arena.solvers.informed._SIMPLEX", 0)
    interior = per_example(z)
    assert interior.value == pytest.approx(simplex.value, abs=1e-9)
    assert interior.gap <= 1e-9


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_do_not_matter(scale):
    z = accuracies(np.random.default_rng(2), 3, 3, 20)
    moved = scale * (z + 5)
    for plain, scaled in (
        (per_example(z), per_example(moved)),
        (through_probe(z[..., 0], glimpse(3, 0.5)), through_probe(moved[..., 0], glimpse(3, 0.5))),
    ):
        assert scaled.value / scale - 5 == pytest.approx(plain.value, abs=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: through_probe([[0.5, np.nan]], [[1.0]]), r"payoffs\[0, 1\] is nan"),
        (lambda: per_example(np.full((1, 2, 3), np.inf)), r"payoffs\[0, 0, 0\] is inf"),
        (lambda: through_probe([0.5], [[1.0]]), "2 axes"),
        (lambda: per_example([[0.5]]), "3 axes"),
        (lambda: through_probe(MATCHING, [[1.0]]), "1 rows for 2 models"),
        (lambda: through_probe(MATCHING, [[0.5, 0.4], [0, 1]]), "channel's row 0 .* sum to 1"),
        (lambda: through_probe(MATCHING, [[1.5, -0.5], [0, 1]]), "weights >= 0"),
        (lambda: glimpse(2, 1.1), "share must be in"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
