"""Studies and reports: what is printed follows from what was played."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from arena.games.evasion import Evasion
from arena.log import read_checkpoint
from arena.report import render, rounds_table
from arena.studies.study import Played
from arena.studies.who_moves_first import orders_table, price, prices_table

TINY = (
    "learner=linear",
    "defender.strategy.recipe.epochs=2",
    "game.examples=40",
)


def match(costs, error=0.5):
    """A match with these costs of the defender, [rounds, n], in a zero-sum game."""
    costs = np.asarray(costs, dtype=float)
    lines = [
        {
            "round": t,
            "order": "defender, then attacker",
            "saw": {"attacker": {"defender": t}, "defender": {"attacker": t - 1}},
            "payoffs": {"attacker": row.mean(), "defender": -row.mean()},
            "standard_errors": {"attacker": 0.1, "defender": 0.1},
            "metrics": {
                "attacked_error": error,
                "clean_error": 0.1,
                "queries": 3.0,
                "gradients": 2.0,
            },
            "seconds": {"attacker": 1.0, "defender": 2.0},
            "notes": [],
        }
        for t, row in enumerate(costs)
    ]
    return Played(lines, {"defender": costs, "attacker": -costs}, len(lines))


def test_the_price_of_moving_first_is_paired_by_seed():
    # The defender loses .5 more when first, whatever the seed; seeds differ by far more.
    first = [match([[1.0, 0.5 + s]]) for s in range(3)]
    second = [match([[0.5, s]]) for s in range(3)]
    found = price(first, second, "defender")
    assert found.mean == pytest.approx(0.5) and found.half == pytest.approx(0.0, abs=1e-12)
    assert price(first, second, "attacker").mean == pytest.approx(-0.5)


def test_a_price_has_students_interval_over_seeds():
    gains = [0.1, 0.2, 0.6]
    first = [match([[1.0 + g, 1.0 + g]]) for g in gains]
    second = [match([[1.0, 1.0]]) for _ in gains]
    found = price(first, second, "defender")
    assert found.mean == pytest.approx(0.3)
    expected = stats.t.ppf(0.975, 2) * np.std(gains, ddof=1) / np.sqrt(3)
    assert found.half == pytest.approx(expected)


def test_tables_read_what_was_played():
    played = {
        "attacker_first": [match([[0.2, 0.2]], 0.2)] * 2,
        "simultaneous": [match([[0.4, 0.4]], 0.4)] * 2,
        "defender_first": [match([[0.9, 0.9]], 0.9)] * 2,
    }
    rows = {row[0]: row for row in orders_table(played, Evasion.measures).rows}
    assert rows["defender first"][1].startswith("0.900")
    assert rows["defender first"][4].startswith("-0.900")
    prices = {row[0]: row[1:] for row in prices_table(played).rows}
    assert [cell[:5] for cell in prices["attacker"]] == ["0.200", "0.700"]
    assert [cell[:5] for cell in prices["defender"]] == ["0.500", "0.700"]


def test_a_round_says_which_move_the_attacker_saw():
    line = match([[1.0, 0.0]]).lines[0]
    rows = [
        rounds_table([{**line, "saw": {"attacker": {"defender": seen}} if seen else {}}]).rows[0]
        for seen in (-1, 4, None)
    ]
    assert [row[1] for row in rows] == ["the opening", "the move of round 4", "nothing"]


def test_who_moves_first_leaves_tables_figure_events_and_folders(shell, tmp_path):
    said = shell("study=who_moves_first", "study.rounds=2", "study.seeds=2", *TINY)
    assert said.code == 0, said.err
    assert "The price of moving first" in said.out
    (folder,) = (tmp_path / "runs" / "who_moves_first").iterdir()
    assert (folder / "error_by_round.png").read_bytes()[:4] == b"\x89PNG"
    page = (folder / "report.html").read_text()
    assert "<svg" in page and "attacker first" in page and "http-equiv" not in page
    # What who moves first is worth to players who choose among what was found.
    assert "Values by protocol" in said.out and "Where best responses end" in said.out
    for name in ("values", "knowledge_curve", "mixtures", "responses", "quantal_responses"):
        assert (folder / f"{name}.svg").is_file() and (folder / f"{name}.csv").is_file()
    runs = sorted(path.parent for path in folder.rglob("rounds.jsonl"))
    assert [str(run.relative_to(folder)) for run in runs] == [
        f"{order}/seed-{seed}"
        for order in ("attacker_first", "defender_first", "simultaneous")
        for seed in (0, 1)
    ]
    assert all(list(run.glob("events.*")) for run in runs)
    # The roster and the deal are the same under every order: only what is seen differs.
    states = [read_checkpoint(run) for run in runs]
    batches = {run.name: [] for run in runs}
    for run, state in zip(runs, states, strict=True):
        batches[run.name].append(state["state"]["revealed"]["attacker"][0]["y"])
    for labels in batches.values():
        assert all(torch.equal(labels[0], other) for other in labels)
    page_before = page
    (folder / "report.html").unlink()
    assert render(folder).read_text() == page_before


def test_a_game_without_measures_is_compared_by_its_payoffs(shell, tmp_path):
    """Matching pennies with pure commitments: whoever moves first loses 1, exactly."""
    said = shell("study=who_moves_first", "experiment=matching_pennies", "study.seeds=1")
    assert said.code == 0, said.err
    for name, payoff in (("attacker_first", 1), ("defender_first", -1)):
        (path,) = tmp_path.rglob(f"{name}/seed-0/rounds.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["payoffs"]["defender"] for line in lines] == [payoff] * len(lines)


def test_a_run_can_be_rendered_again(shell, tmp_path):
    assert shell("study.rounds=2", *TINY).code == 0
    (folder,) = (tmp_path / "runs" / "match").iterdir()
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1]
    page = render(folder).read_text()
    assert f"{lines[1]['payoffs']['defender']:.3f}" in page
    assert page.count("data:image/png;base64,") == 1
