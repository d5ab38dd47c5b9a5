"""Killed at any moment (SIGKILL) and started again, a run ends as if nothing had happened."""

import importlib
import signal
import subprocess
import sys
import time

import pytest
from killed import kill_and_start_again

from arena.log import CHECKPOINT, read_checkpoint, read_rounds

TINY = ["learner=linear", "defender.strategy.recipe.epochs=2", "game.examples=40"]


def rounds(folder, seconds=False):
    lines = read_rounds(folder)
    return [{k: v for k, v in line.items() if seconds or k != "seconds"} for line in lines]


def kept(folder):
    return read_checkpoint(folder)["lines"] if (folder / CHECKPOINT).exists() else []


def assert_same(folder, unbroken):
    """Every match in `folder` is bit-identical to the one in `unbroken`."""
    matches = [path.parent.relative_to(unbroken) for path in unbroken.rglob("rounds.jsonl")]
    assert matches
    for match in matches:
        left, right = folder / match, unbroken / match
        assert rounds(left) == rounds(right)
        name = "outcomes.safetensors"
        assert (left / name).read_bytes() == (right / name).read_bytes()
    for path in unbroken.rglob("*"):
        if "tfevents" not in path.name:
            assert (folder / path.relative_to(unbroken)).exists(), path
    assert not list(folder.rglob("*.tmp"))


def killed_and_gone_on_with(tmp_path, moments, *arguments):
    """Checks runs killed at these moments; gives how many rounds each had finished by then."""
    kill_and_start_again(tmp_path, moments, *arguments)
    broken = [path.with_suffix("") for path in tmp_path.glob("at-*.killed")]
    broken.sort(key=lambda path: int(path.name[3:]))
    unbroken = tmp_path / "unbroken"
    finished = []
    for folder in broken:
        assert_same(folder, unbroken)
        killed = tmp_path / f"{folder.name}.killed"
        finished.append(0)
        for match in killed.rglob("checkpoint.pt"):
            held = kept(match.parent)
            again = rounds(folder / match.parent.relative_to(killed), seconds=True)
            assert (
                again[: len(held)] == held
            )  # to the second: what was finished is not played again
            finished[-1] += len(held)
    return finished


# A file is replaced in three moments: torn, whole, in its place; what is appended is torn, then
# whole. First come the three files of the configuration (1 to 9). A round appends to the log,
# replaces the checkpoint and appends a line (10 to 16, 17 to 23). Then come costs and report.
@pytest.mark.parametrize(
    "moments", ["12,15,18,22,25", pytest.param("all", marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_a_match_killed_while_it_writes_ends_as_an_unbroken_one(tmp_path, moments):
    finished = killed_and_gone_on_with(tmp_path, moments, *TINY, "study.rounds=2")
    assert finished == [0, 1, 1, 2, 2] or len(finished) > 25
    assert finished == sorted(finished) and set(finished) == {0, 1, 2}


@pytest.mark.parametrize(
    "moments", ["28", pytest.param("all", marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_who_moves_first_killed_midway_ends_as_an_unbroken_one(tmp_path, moments):
    study = ["study=who_moves_first", "study.rounds=1", "study.seeds=1"]
    finished = killed_and_gone_on_with(tmp_path, moments, *TINY, *study)
    assert finished == [1] or len(finished) > 30
    assert finished == sorted(finished) and set(finished) <= {0, 1, 2, 3}


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_from_outside_at_any_moment(tmp_path, shell, kills):
    arguments = [*TINY, "study.rounds=12"]
    folder, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    assert shell(*arguments, f"hydra.run.dir={unbroken}").code == 0
    for kill in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-m", "arena", *arguments, f"hydra.run.dir={folder}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        scratch = folder / ".checkpoint.pt.tmp"
        while process.poll() is None and (
            len(kept_lines(folder)) < 2 * kill or not scratch.exists()
        ):
            time.sleep(0.0002)
        process.send_signal(signal.SIGKILL)
        told = [line for line in process.communicate()[0].splitlines() if ", round " in line]
        assert process.returncode == -signal.SIGKILL
        assert len(told) <= len(kept(folder)) < 12  # what was told is on the disk
    assert shell(*arguments, f"hydra.run.dir={folder}").code == 0
    assert_same(folder, unbroken)

    before = contents(folder)
    again = shell(*arguments, f"hydra.run.dir={folder}")
    assert again.code == 0
    assert "already holds these 12 rounds; nothing to do" in again.out
    assert contents(folder) == before


MINE = """
from dataclasses import dataclass
from arena import Strategy
from {name}_step import step

@dataclass(frozen=True)
class Shift(Strategy):
    def respond(self, turn):
        return turn.player.actions.project(turn.data.x, turn.data.x + step())
"""


def test_a_run_whose_code_was_edited_is_not_continued(tmp_path, shell):
    """Old and new rounds would stand in one table."""
    name = "edited_between_rounds"
    step = tmp_path / f"{name}_step.py"
    (tmp_path / f"{name}.py").write_text(MINE.format(name=name))
    mine = ["attacker/strategy=honest", f"attacker.strategy._target_={name}.Shift"]
    arguments = [*TINY, *mine, f"hydra.run.dir={tmp_path / 'run'}"]

    def played(number):
        for each in (name, f"{name}_step"):
            sys.modules.pop(each, None)
        importlib.invalidate_caches()
        return shell(*arguments, f"study.rounds={number}")

    step.write_text("def step():\n    return 0.1\n")
    assert played(1).code == 0 == played(2).code
    step.write_text("def step():  # to the right\n    return 0.1\n")
    assert played(3).code == 0
    before = rounds(tmp_path / "run", seconds=True)
    step.write_text("def step():\n    return -0.125\n")
    for number in (3, 4):
        said = played(number)
        assert said.code == 2 and f"of other code: {name}_step.py changed since; choose" in said.err
        assert rounds(tmp_path / "run", seconds=True) == before


def kept_lines(folder):
    path = folder / "rounds.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("order", ["attacker_first", "simultaneous", "defender_first"])
def test_a_match_gone_on_with_for_more_rounds_is_the_match_of_so_many(tmp_path, shell, order):
    arguments = [*TINY, f"order={order}", "attacker.strategy.steps=2"]
    at_once, in_two = tmp_path / "at_once", tmp_path / "in_two"
    assert shell(*arguments, "study.rounds=3", f"hydra.run.dir={at_once}").code == 0
    assert shell(*arguments, "study.rounds=2", f"hydra.run.dir={in_two}").code == 0
    assert shell(*arguments, "study.rounds=3", f"hydra.run.dir={in_two}").code == 0
    assert_same(in_two, at_once)
