"""Killed (SIGKILL) 200 times at random moments and started again, runs end as unbroken ones.

A folder is killed and started again until it is whole; then the next one is. Only what a user reads
is compared. `test_resume` kills at every moment of writing instead, and looks at checkpoints too.
"""

import contextlib
import csv
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

SMALL = [
    *("learner=linear", "epochs=2", "game.examples=40", "attacker.strategy.steps=3"),
    "models=${hydra:runtime.output_dir}/models",  # so that a folder owes nothing to the others
]
RESPONDING = ["study.responding.stronger.steps=3", "study.responding.training=100"]
# No seconds among them, which differ from run to run.
FIELDS = ("round", "order", "saw", "payoffs", "standard_errors", "metrics", "notes")


@dataclass(frozen=True)
class Run:
    """What is started, and how often it is killed."""

    kills: int
    arguments: tuple[str, ...]

    def start(self, folder):
        """Begins the run in a process and a process group of its own; its output is beside it."""
        process = multiprocessing.get_context("spawn").Process(
            target=_arena, args=(folder, [*self.arguments, *SMALL])
        )
        process.start()
        return process


# Matches and cells that a pool of processes plays.
POOLED = """\
_target_: arena.studies.payoffs.Payoffs
title: Payoffs
attacks:
  clean:
    _target_: arena.studies.roster.Attack
    strategy: {_target_: arena.attacks.honest.Honest}
  FGSM:
    _target_: arena.studies.roster.Attack
    strategy: {_target_: arena.attacks.fgsm.FGSM}
defenses:
  plain:
    _target_: arena.studies.roster.Defense
    strategy: {_target_: arena.defenses.erm.ERM, learner: "${learner}", epochs: 2}
  longer:
    _target_: arena.studies.roster.Defense
    strategy: {_target_: arena.defenses.erm.ERM, learner: "${learner}", epochs: 40}
seeds: 1
executor:
  _target_: arena.executors.processes.Processes
  workers: 2
"""

RUNS = {
    "match": Run(90, ("study.rounds=12",)),
    "sweep": Run(50, ("-m", "order=attacker_first,simultaneous,defender_first", "study.rounds=3")),
    "who_moves_first": Run(20, ("study=who_moves_first", "study.rounds=2", "study.seeds=2")),
    "double_oracle": Run(15, ("study=double_oracle", "study.iterations=3", *RESPONDING)),
    "repeated_play": Run(15, ("study=repeated_play", "study.rounds=4", *RESPONDING)),
    "pool": Run(10, ("--config-dir=conf", "study=pooled")),
}


def _arena(folder, arguments):
    from arena.__main__ import main

    os.setsid()
    with open(f"{folder}.out", "a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    what = "sweep" if "-m" in arguments else "run"
    sys.argv = ["arena", *arguments, f"hydra.{what}.dir={folder}"]
    main()


def killed_until_whole(run, folder, chance, seconds, most):
    """Kills a run up to `most` times, and starts it again until it ends; gives how often it died.

    A run whose pool is orphaned is started again at once, so that for a while both work.
    """
    killed, orphans = 0, None
    while True:
        process = run.start(folder)
        # Early rather than late, so that a folder is killed several times before it is whole.
        process.join(chance.uniform(0, 0.6 * seconds) if killed < most else None)
        process.kill()
        process.join()
        if orphans is not None:
            end_group(orphans)
        if process.exitcode != -signal.SIGKILL:
            break
        killed, orphans = killed + 1, process.pid
    assert process.exitcode == 0, folder.with_name(f"{folder.name}.out").read_text()[-3000:]
    return killed


def end_group(leader):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: cell for name, cell in row.items() if name != "seconds"}
            for row in csv.DictReader(file)
        ]


def rounds(path):
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [{name: line[name] for name in FIELDS} for line in lines]


def tensors(path):
    return {name: (str(t.dtype), t.shape, t.tobytes()) for name, t in load_file(path).items()}


def contents(folder):
    """What the folder holds by the files' names: rounds, tables and tensors."""
    readers = {"rounds.jsonl": rounds, ".csv": table, ".safetensors": tensors}
    return {
        str(path.relative_to(folder)): read(path)
        for path in sorted(folder.rglob("*"))
        for ending, read in readers.items()
        if path.name.endswith(ending) and not path.name.startswith(".")
    }


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "pooled.yaml").write_text(POOLED)
    run, chance = RUNS[name], random.Random(name)
    for folder in ("first", "unbroken"):  # the first one also starts the process that is forked
        begun = time.monotonic()
        assert killed_until_whole(run, tmp_path / folder, chance, 0, most=0) == 0
        seconds = time.monotonic() - begun
    unbroken = contents(tmp_path / "unbroken")
    assert any(path.endswith(".safetensors") for path in unbroken)
    assert contents(tmp_path / "first") == unbroken

    kills = 0
    for number in itertools.count():
        folder = tmp_path / f"broken-{number}"
        kills += killed_until_whole(run, folder, chance, seconds, run.kills - kills)
        assert contents(folder) == unbroken
        if kills == run.kills:
            break
    assert number < run.kills, "no run was killed twice"
