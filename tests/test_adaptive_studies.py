"""Double oracle and repeated play from the shell: what is left, what is refused, what survives."""

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from killed import kill_and_start_again
from safetensors import safe_open

TINY = [
    "learner=linear",
    "epochs=2",
    "game.examples=40",
    "attacker.strategy.steps=2",
    "study.responding.stronger.steps=3",
    "study.responding.training=100",
]
DOUBLE_ORACLE = ["study=double_oracle", "study.iterations=3", *TINY]
REPEATED_PLAY = ["study=repeated_play", "study.rounds=4", *TINY]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_double_oracle_leaves_its_curve(shell, tmp_path):
    said = shell(*DOUBLE_ORACLE, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    assert "Does randomising help?" in said.out and "a lower bound" in said.out.replace("\n", " ")
    folder = tmp_path / "run"
    lines = [json.loads(line) for line in (folder / "iterations.jsonl").read_text().splitlines()]
    rows = read(folder / "exploitability.csv")
    assert [line["iteration"] for line in lines] == list(range(len(lines)))
    assert 1 <= len(lines) == len(rows) <= 3
    for line, row in zip(lines, rows, strict=True):
        assert "lower bound" in line["bound"]
        assert sum(line["models"].values()) == pytest.approx(1)
        assert sum(line["attacks"].values()) == pytest.approx(1)
        assert float(row["exploitability"]) == line["exploitability"]["mean"]
        gains = line["attacker_gain"]["mean"] + line["defender_gain"]["mean"]
        assert line["exploitability"]["mean"] == pytest.approx(gains)
    payoffs = read(folder / "payoffs.csv")
    assert len(payoffs) == len(lines[-1]["models"])
    assert all(-1 <= float(row["attack 0"]) <= 0 for row in payoffs)
    assert (folder / "exploitability.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (folder / "report.html").read_text()
    (events,) = folder.glob("events.*")
    assert (folder / "exploitability.png").read_bytes() in events.read_bytes()


def test_repeated_play_leaves_every_cell(shell, tmp_path):
    said = shell(*REPEATED_PLAY, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    folder = tmp_path / "run"
    cells = read(folder / "cross_play.csv")
    assert len(cells) == 3 * 5 * 5
    played = {(c["responder"], c["model_of"], c["attack_of"]): c["payoff"] for c in cells}
    opening = {played[name, "0", "0"] for name in ("memoryless", "fictitious", "double_oracle")}
    assert len(opening) == 1, "all begin alike"
    rounds = read(folder / "rounds.csv")
    assert len(rounds) == 3 * 5
    assert {r["models_in_support"] for r in rounds if r["responder"] == "memoryless"} == {"1"}
    assert [r["models_in_support"] for r in rounds if r["responder"] == "fictitious"] == [*"12345"]
    assert (folder / "repeated_play.svg").is_file() and (folder / "report.html").is_file()


@pytest.mark.parametrize("study", ["double_oracle", "repeated_play"])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["attacker/knowledge=no_box", "attacker/strategy=transfer"], "white_box"),
        (["defender/strategy=adversarial_training"], "no loss of a batch"),
        (["defender/strategy=naive_bayes"], "no way of training"),
        (["threat=replay"], "white_box"),
        (["experiment=matching_pennies"], "MatrixGame has data or a score of its own"),
        (["attacker/cost=targeted"], "do not sum to 0"),
        (["study.responding.own=2"], "between 0 and 1"),
    ],
)
def test_what_cannot_be_played_is_one_line(shell, tmp_path, study, wrong, why):
    said = shell(f"study={study}", *wrong)
    assert said.code == 2 and why in said.err
    assert len(said.err.splitlines()) <= 2 and "Traceback" not in said.err
    assert not list(tmp_path.rglob("*.safetensors")), "nothing was trained"


@pytest.mark.parametrize("wrong", ["study.tolerance=0", "study.meta=best", "study.iterations=0"])
def test_options_of_double_oracle_are_checked(shell, wrong):
    said = shell("study=double_oracle", wrong)
    assert said.code == 2 and len(said.err.splitlines()) <= 2
    assert wrong.partition("=")[0] in said.err


# Files are written in three moments each: torn, whole, in its place. Every run keeps what it trains
# and crafts in a folder of its own, so that it owes nothing to the others.
SEVERAL = "10,14,21,28,36,45"


@pytest.mark.parametrize(
    ("arguments", "moments"),
    [
        pytest.param(DOUBLE_ORACLE, "31", id="double_oracle"),
        pytest.param(DOUBLE_ORACLE, SEVERAL, id="double_oracle-several", marks=pytest.mark.slow),
        pytest.param(REPEATED_PLAY, SEVERAL, id="repeated_play-several", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_it_ends_as_an_unbroken_run(tmp_path, arguments, moments):
    own = "models=${hydra:runtime.output_dir}/models"
    kill_and_start_again(tmp_path, moments, *arguments, own)
    unbroken = contents(tmp_path / "unbroken")
    assert any(name.endswith(".safetensors") for name in unbroken)
    broken = [path.with_suffix("") for path in tmp_path.glob("at-*.killed")]
    assert len(broken) == len(moments.split(","))
    for folder in broken:
        assert contents(folder) == unbroken
        assert contents(tmp_path / f"{folder.name}.killed") != unbroken


def rows(path):
    """What a file of SQLite's holds; its pages tell how often it was written, too."""
    with closing(sqlite3.connect(path)) as file:
        return sorted(file.execute("SELECT key, costs FROM cells"))


def tensors(path):
    """What a file of safetensors holds; the order of its metadata differs between processes."""
    with safe_open(path, "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), {n: (t.dtype, t.shape, t.tobytes()) for n, t in found.items()}


def contents(folder):
    """What a run left, but for the times in its events and the folders' names in its options."""
    readers = {".sqlite": rows, ".safetensors": tensors}
    return {
        str(path.relative_to(folder)): readers.get(path.suffix, Path.read_bytes)(path)
        for path in folder.rglob("*")
        if path.is_file() and "tfevents" not in path.name and ".hydra" not in path.parts
    }
