"""The best-response graph: known sinks and cycles, and only those edges that are certain."""

import numpy as np
import pytest
from test_empirical_values import PENNIES, drawn, game

from arena.empirical.game import EmpiricalGame
from arena.empirical.response_graph import response_graph

CYCLE = (("m0", "a0"), ("m0", "a1"), ("m1", "a0"), ("m1", "a1"))


def test_matching_pennies_is_one_cycle():
    found = response_graph([PENNIES])
    assert set(found.graph.edges) == {
        (("m0", "a0"), ("m1", "a0")),  # the defender leaves the model that the attack breaks
        (("m1", "a0"), ("m1", "a1")),
        (("m1", "a1"), ("m0", "a1")),
        (("m0", "a1"), ("m0", "a0")),
    }
    players = {one: edge["player"] for one, _, edge in found.graph.edges(data=True)}
    assert [players[node] for node in CYCLE] == ["defender", "attacker", "attacker", "defender"]
    assert found.sinks() == found.cycles() == found.sinks(certain=True) == (CYCLE,)
    masses = [mass for _, mass in found.graph.nodes(data="mass")]
    assert masses == pytest.approx([1 / 4] * 4)


def test_a_pure_equilibrium_is_a_sink_of_its_own():
    # The second model is always better, the second attack too.
    found = response_graph([game(np.array([[[2.0], [3.0]], [[0.0], [1.0]]]).repeat(9, 2))])
    assert found.sinks() == ((("m1", "a1"),),)
    assert found.cycles() == ()
    assert found.graph.nodes["m1", "a1"]["mass"] == pytest.approx(1)


def test_an_edge_is_certain_if_bonferronis_interval_says_so():
    """By hand: 2 x 2 has four pairs, so the level is 1 - .05 / 4."""
    cost = np.zeros((2, 2, 400), dtype=np.int8)
    cost[0, 0, :9] = 1  # 9 of 400: standard error .0075, 2.98 errors from 0; z is 2.4977
    found = response_graph([game(cost)])
    assert found.level == pytest.approx(1 - 0.05 / 4)
    edge = found.graph.edges[("m0", "a0"), ("m1", "a0")]
    assert edge["gain"].mean == pytest.approx(9 / 400) and edge["certain"]
    cost[0, 0, 6:9] = 0  # 6 of 400: 2.46 errors
    found = response_graph([game(cost)])
    assert not found.graph.edges[("m0", "a0"), ("m1", "a0")]["certain"]
    assert found.certain.number_of_edges() == 0
    assert len(found.sinks(certain=True)) == 4


def test_ties_are_no_reason_to_move():
    found = response_graph([game(np.zeros((2, 3, 5)))])
    assert found.graph.number_of_edges() == 0
    assert len(found.sinks()) == 6


def test_each_player_follows_its_own_payoff():
    cost = np.array([[[1.0, 1.0], [0.0, 0.0]]])
    named = {"models": ("m",), "attacks": ("a", "b"), "against": (None, None)}
    found = response_graph([EmpiricalGame(**named, costs={"defender": cost, "attacker": cost})])
    assert list(found.graph.edges) == [(("m", "a"), ("m", "b"))]
    assert found.met == (("m", "b"),)


def test_certain_edges_of_a_null_game_are_rare():
    """Of all cells alike some certain edge should be there in 1 of 20 games at most."""
    generator, rounds = np.random.default_rng(3), 300
    truth = np.full((3, 3), 0.5)
    wrong = sum(
        response_graph([drawn(truth, 200, generator)]).certain.number_of_edges() > 0
        for _ in range(rounds)
    )
    assert wrong / rounds < 0.05 + 4 * (0.05 * 0.95 / rounds) ** 0.5


def test_a_level_is_a_probability():
    with pytest.raises(ValueError, match="level=95"):
        response_graph([PENNIES], level=95)
