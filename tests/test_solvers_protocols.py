"""Values by protocol: closed forms, weak duality, garbled probes, attacks an example, brackets."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.solvers.brackets import bracketed
from arena.solvers.protocols import glimpse, per_example, through_probe, values
from arena.solvers.zero_sum import solve

MATCHING = np.eye(2)  # the defender is right where the attack was made for the other model
GENERATORS = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed))


def accuracies(generator, models, attacks, examples):
    """Per-example outcomes, 0 or 1, hence with many ties."""
    return (generator.random((models, attacks, examples)) < generator.random()).astype(float)


def channel(generator, models, signals):
    return generator.dirichlet(np.ones(signals) / 2, models)


def test_matching_pennies_under_every_protocol():
    found = values(MATCHING, glimpse(2, 0.25))
    assert found.defender_first == 0
    assert found.attacker_first == 1
    assert found.simultaneous == pytest.approx(0.5)
    # Seen a quarter of the time and then lost, else a coin: 3/4 x 1/2.
    assert found.probed == pytest.approx(0.375)
    assert found.price_to_defender == pytest.approx(0.5)
    assert found.price_to_attacker == pytest.approx(0.5)
    assert found.order_gap == pytest.approx(1)
    assert found.information_price == pytest.approx(0.125)
    assert found.per_example is found.defender_first_per_example is None
    assert found.gain_of_mixing_per_example is None


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_a_noisy_probe_of_matching_pennies(noise):
    # The attacker follows the signal, so that the defender is right where the signal is wrong.
    found = through_probe(MATCHING, [[1 - noise, noise], [noise, 1 - noise]])
    assert found.value == pytest.approx(noise)
    assert found.gap <= 1e-12


def test_a_saddle_has_no_prices():
    found = values([[3, 1, 2], [0, 0, 5]])
    assert found.order_gap == 0
    assert found.price_to_defender == pytest.approx(0)
    assert found.probed is found.information_price is None


@settings(max_examples=20)
@given(GENERATORS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_probes_go_from_the_value_to_the_white_box_and_garbling_never_hurts(
    generator, models, attacks, signals
):
    u = generator.integers(0, 4, (models, attacks)) / 4
    shown = channel(generator, models, signals)
    found = values(u, shown)  # asserts V_DF <= V_K <= v <= V_AF
    assert found.probe.gap <= 1e-9
    garbled = shown @ channel(generator, signals, 3)
    assert through_probe(u, garbled).value >= found.probed - 1e-9
    assert through_probe(u, np.eye(models)).value == pytest.approx(found.defender_first)
    assert through_probe(u, np.ones((models, 1))).value == pytest.approx(found.simultaneous)


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
    found = values(z)
    # u = [[0, 1/2], [1/2, 0]]: with one attack for all examples, mixing seems to gain 1/4 ...
    assert found.defender_first == 0
    assert found.simultaneous == pytest.approx(1 / 4)
    # ... but on example j attack j breaks both.
    assert found.defender_first_per_example == 0
    assert found.per_example.value == pytest.approx(0)
    assert found.gain_of_mixing_per_example == pytest.approx(0)
    assert found.per_example.replies == pytest.approx(np.eye(2))
    # Where it breaks nothing besides, mixing does gain, against both attackers.
    z[[1, 0], [0, 1], [0, 1]] = 1
    assert values(z).gain_of_mixing_per_example == pytest.approx(1 / 2)


@settings(max_examples=15)
@given(GENERATORS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 30))
def test_an_attacker_an_example(generator, models, attacks, examples):
    z = accuracies(generator, models, attacks, examples)
    found = values(z)  # asserts V_DF,pe <= v_pe <= v
    answer = found.per_example
    assert answer.gap <= 1e-9
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
    monkeypatch.setattr("arena.solvers.protocols._SIMPLEX", 0)
    interior = per_example(z)
    assert interior.value == pytest.approx(simplex.value, abs=1e-9)
    assert interior.gap <= 1e-9


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_do_not_matter(scale):
    z = accuracies(np.random.default_rng(2), 3, 3, 20)
    plain, scaled = values(z, glimpse(3, 0.5)), values(scale * (z + 5), glimpse(3, 0.5))
    for name in ("defender_first", "attacker_first", "simultaneous", "probed"):
        assert getattr(scaled, name) / scale - 5 == pytest.approx(getattr(plain, name), abs=1e-8)
    assert scaled.per_example.value / scale - 5 == pytest.approx(plain.per_example.value)


@settings(max_examples=15)
@given(GENERATORS)
def test_brackets_nest(generator):
    inner = np.sort(generator.random((2, 3, 4)), axis=0)
    outer = inner[0] - generator.random((3, 4)), inner[1] + generator.random((3, 4))
    truth = inner[0] + generator.random((3, 4)) * (inner[1] - inner[0])
    exact, near, far = values(truth), bracketed(*inner), bracketed(*outer)
    for name in ("defender_first", "attacker_first", "simultaneous"):
        ends = [getattr(end, name) for end in (far.low, near.low, exact, near.high, far.high)]
        assert (np.diff(ends) >= -1e-9).all()
    for name in ("price_to_defender", "price_to_attacker", "order_gap"):
        (low, high), (lower, higher) = getattr(near, name), getattr(far, name)
        assert lower - 1e-9 <= low <= getattr(exact, name) + 1e-9
        assert getattr(exact, name) - 1e-9 <= high <= higher + 1e-9


def test_values_that_break_weak_duality_are_refused():
    found = values(MATCHING, glimpse(2, 0.25))
    with pytest.raises(ArithmeticError, match="weak duality fails"):
        dataclasses.replace(found, defender_first=0.5)
    with pytest.raises(ArithmeticError, match="weak duality fails"):
        dataclasses.replace(found, attacker_first=0.4)
    with pytest.raises(ArithmeticError, match="weak duality fails"):
        dataclasses.replace(found, defender_first_per_example=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: values([[0.5, np.nan]]), r"payoffs\[0, 1\] is nan"),
        (lambda: values(np.full((1, 2, 3), np.inf)), r"payoffs\[0, 0, 0\] is inf"),
        (lambda: values([0.5]), "2 axes"),
        (lambda: through_probe(MATCHING, [[1.0]]), "1 rows for 2 models"),
        (lambda: through_probe(MATCHING, [[0.5, 0.4], [0, 1]]), "channel's row 0 .* sum to 1"),
        (lambda: through_probe(MATCHING, [[1.5, -0.5], [0, 1]]), "weights >= 0"),
        (lambda: glimpse(2, 1.1), "share must be in"),
        (lambda: bracketed([[0.5]], [[0.4]]), r"0.5 above the upper 0.4 at \[0, 0\]"),
        (lambda: bracketed([[0.5]], [[0.4, 1]]), "one shape"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
