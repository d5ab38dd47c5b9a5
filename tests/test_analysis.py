"""The analysis that studies end with: what is printed, drawn and saved follows from the game."""

import csv
from functools import partial

import numpy as np
import pytest
from test_empirical_values import PENNIES, game

from arena.empirical.figures import knowledge_figure, response_figure
from arena.empirical.game import EmpiricalGame
from arena.empirical.protocol import AT_ONCE, DEFENDER_FIRST
from arena.empirical.response_graph import response_graph
from arena.empirical.values import values
from arena.events import Events
from arena.studies.analysis import analysis, concluding
from arena.studies.figures import show_figures

CYCLIC = game(np.eye(3)[:, :, None].repeat(6, 2))


def test_a_table_says_what_the_values_say():
    found = analysis([PENNIES])
    rows = {row[1]: row for row in found.tables[0].rows}
    assert found.tables[0].columns[-1] == "held out"
    assert rows["v"][0] == str(AT_ONCE) and rows["v"][2] == "-0.500 ± 0.000"
    assert rows["V_DF"][2:4] == ["-1.000 ± 0.000", "-1.000 ± 0.000"]
    prices = {row[0]: row[1:] for row in found.tables[1].rows}
    assert prices["the order gap"][:3] == ["1.000 ± 0.000", "1.000 ± 0.000", "yes"]
    gains = prices["what mixing gains against one attack per example"]
    assert gains[0] == "0.500 ± 0.000"
    (_, _, responses) = found.tables
    assert [row[:3] for row in responses.rows] == [
        ["all edges", "cycle of 4", "1.00"],
        ["certain edges", "cycle of 4", "1.00"],
    ]


def test_a_game_that_is_not_zero_sum_has_its_outcomes():
    cost = PENNIES.costs["defender"]
    costs = {"defender": cost, "attacker": 0.1 - cost}
    priced = EmpiricalGame(PENNIES.models, PENNIES.attacks, PENNIES.against, costs)
    table = analysis([priced]).tables[-1]
    assert table.title == "Where the game is not zero-sum"
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["equilibrium 1 of 1"] == ["-0.500 ± 0.000", "0.400 ± 0.000"]


def test_a_cycle_that_play_may_leave_is_told_from_one_that_it_cannot():
    """Pennies, and a third model as good as the first against the second attack: a saddle.

    Costs are 2 less payoffs. Who comes to (m1, a1) goes on to m0, and round, or to m2, and stays.
    """
    cost = 2 - np.array([[0, 1], [2, 0], [1.5, 1]])[:, :, None].repeat(3, 2)
    (_, _, responses) = analysis([game(cost)]).tables
    for reading in ("all edges", "certain edges"):
        assert [row[1::2] for row in responses.rows if row[0] == reading] == [
            ["equilibrium", "m2 / a1"],
            ["or pass through: cycle of 4", "m0 / a0, m0 / a1, m1 / a0, m1 / a1"],
        ]


def test_quantal_responses_go_from_uniform_play_to_the_equilibrium(tmp_path):
    """Uniform play pays the mean of all cells; much rationality v, where m0 is played with 1/5."""
    cost = np.array([[0.0, 1.0], [0.5, 0.25]])[:, :, None].repeat(4, 2)
    played = game(cost)
    found = analysis([played], rationality=(1000, 0, 2))
    (table,) = (table for table in found.tables if table.title == "Where players make mistakes")
    assert [row[0] for row in table.rows] == ["0", "2", "1000"]
    assert table.rows[0][1:] == ["-0.438 ± 0.000", "0.438 ± 0.000", "all alike", "all alike"]
    lines = found.records["quantal_responses"]
    much = [line for line in lines if line["rationality"] == 1000]
    assert much[0]["move"] == "m0" and much[0]["probability"] == pytest.approx(0.2, abs=0.01)
    assert much[0]["payoff"] == pytest.approx(-0.4, abs=1e-3)
    # Logit: at every rationality log odds are the payoffs' differences times it.
    for rationality in (2, 1000):
        x, other, *attacks = (
            line["probability"] for line in lines if line["rationality"] == rationality
        )
        ahead = ((cost[1] - cost[0]).mean(1) * attacks).sum()
        assert np.log(x / other) == pytest.approx(rationality * ahead, abs=1e-6)
    assert "quantal_responses" in found.figures
    wide = analysis([game(np.eye(8, 40)[:, :, None].repeat(4, 2))], rationality=(0, 30))
    (tmp_path / "wide").mkdir()  # names of 40 attacks leave room for the axes
    show_figures(wide.figures, tmp_path / "wide", Events(tmp_path / "wide"))
    assert "quantal_responses" not in analysis([played]).figures


def test_a_study_whose_analysis_is_refused_goes_on(capsys):
    one = game(np.ones((2, 2, 1)))
    with pytest.raises(ValueError, match="halved"):
        analysis([one])
    found = concluding(partial(analysis, [one]))
    assert not found.tables and not found.figures and not found.records
    assert "No analysis: one example cannot be halved" in capsys.readouterr().out


def test_records_and_figures_are_saved(tmp_path):
    found = analysis([CYCLIC])
    found.save(tmp_path)
    names = show_figures(found.figures, tmp_path, Events(tmp_path))
    assert sorted(names) == sorted(f"{name}.svg" for name in found.figures)
    for name in found.figures:
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    with open(tmp_path / "values.csv", encoding="utf-8") as file:
        lines = {line["symbol"]: line for line in csv.DictReader(file)}
    assert float(lines["v"]["value"]) == pytest.approx(-1 / 3)
    assert lines["V_K(0.5)"]["share"] == "0.5" and lines["v"]["order"] == "simultaneous"
    with open(tmp_path / "mixtures.csv", encoding="utf-8") as file:
        shares = [line for line in csv.DictReader(file) if line["symbol"] == "v"]
    assert [float(line["probability"]) for line in shares] == pytest.approx([1 / 3] * 6)
    (events,) = tmp_path.glob("events.*")
    assert (tmp_path / "values.png").read_bytes() in events.read_bytes()
    before = {name: (tmp_path / name).read_bytes() for name in names}
    show_figures(analysis([CYCLIC]).figures, tmp_path, Events(tmp_path))
    assert before == {name: (tmp_path / name).read_bytes() for name in names}


def test_with_missing_cells_there_are_brackets_only():
    cost = PENNIES.costs["defender"].copy()
    cost[0, 1] = np.nan
    holed = game(cost, missing={("m0", "a1"): "killed"})
    found = analysis([holed], cells=(0, 1))
    assert [table.title for table in found.tables] == ["Values by protocol", "Prices"]
    assert found.tables[0].rows[2][2:] == ["", "", "[-1.000, -0.500]"]
    assert set(found.figures) == {"values", "knowledge_curve"}


def test_what_lacks_most_is_left_out_and_named():
    cost = np.eye(3)[:, :, None].repeat(6, 2)
    cost[2, :] = np.nan
    cost[0, 1] = np.nan
    why = dict.fromkeys((("m2", "a0"), ("m2", "a1"), ("m2", "a2"), ("m0", "a1")), "killed")
    (table, *_) = analysis([CYCLIC, game(cost, missing=why)]).tables
    assert "left out because cells are missing: m2, a1" in table.note
    # What is left: m0 breaks under a0, m1 under nothing.
    assert {row[1]: row[2] for row in table.rows}["V_DF"] == "0.000 ± 0.000"
    nothing = game(np.full((1, 1, 2), np.nan), missing={("m0", "a0"): "killed"})
    with pytest.raises(ValueError, match="killed"):
        analysis([nothing])


def test_the_graph_shows_only_what_best_responses_lead_to():
    cost = np.full((6, 6), 0.5) + 0.4 * np.eye(6)
    cost[0] -= 0.2
    cost[1] -= 0.1
    graph = response_graph([game(cost[:, :, None].repeat(5, 2))])
    (axes,) = response_figure(graph).axes
    shown = {label.get_text() for label in axes.get_yticklabels()}
    assert shown == {node[0] for node in graph.met}
    arrows = [patch for patch in axes.patches if hasattr(patch, "get_arrowstyle")]
    inner = graph.graph.subgraph(graph.met).number_of_edges()
    assert len(arrows) == inner > 0


def test_a_curve_is_of_probes():
    with pytest.raises(ValueError, match="needs probes"):
        knowledge_figure(values([PENNIES], [DEFENDER_FIRST], hold_out=False).values)
