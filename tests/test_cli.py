"""The shell: a user's mistake is one or two clear lines, no traceback, and loses nothing."""

import contextlib
import csv
import errno
import gzip
import os
import re
import signal
import struct
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from arena import report, schema
from arena.__main__ import run_name
from arena.files import held
from arena.log import read_rounds

TINY = ["learner=linear", "defender.strategy.recipe.epochs=1", "game.examples=20", "study.rounds=1"]

# Arguments, and what the one or two lines must say.
MISTAKES = [
    # Names, with their near matches.
    (["attacker/strategy=pdg"], r"attacker/strategy has no option pdg; did you mean pgd\?"),
    (
        ["attacker.strategy={_target_: arena.attacks.pgd.PGD, stps: 3}"],
        r"no option attacker.strategy.stps; did you mean attacker.strategy.steps or ",
    ),
    (["learner=transformer"], r"learner has no option transformer; there is .*linear, .*mlp"),
    (["experiment=x"], r"experiment has no option x; there is "),
    (["atacker/strategy=pgd"], r"no option atacker/strategy; did you mean attacker/strategy"),
    (["studdy=match"], r"no option studdy; did you mean study\?"),
    (["attacker.strategy.epss=1"], r"no option attacker.strategy.epss; did .*attacker.actions.eps"),
    (["attacker.strategy.stps=1"], r"did you mean attacker.strategy.steps"),
    (["attacker.eps=1"], r"did you mean attacker.actions.eps\?"),
    (["memory=all"], r"did you mean defender.strategy.memory\?"),
    (["attacker/strategy=transfer", "attacker.strategy.guess.epoch=1"], r"strategy.guess.epochs\?"),
    (["hydra.run.dri=x"], r"did you mean hydra.run.dir"),
    (["zzz=1"], r"no option zzz; there is attacker, .*study"),
    (["+attacker.actions.epss=1"], r"attacker.actions.epss: no such option .*did you mean eps\?"),
    (["++sed=3"], r"no option sed; did you mean seed\?"),
    (["+sed=3"], r"no option sed; did you mean seed\?"),
    (["++atacker.strategy.steps=3"], r"no option atacker; did you mean attacker\?"),
    (["+lerner=mlp"], r"no option lerner; did you mean learner\?"),
    (["++study.foo=1"], r"study.foo: no such option of arena.studies.match.Match; there is rounds"),
    (["~attacker.actions.epss"], r"'attacker.actions.epss' does not exist"),
    (["~attacker.actions.eps"], r"attacker.actions.eps is missing: arena.actions.lp.Linf needs it"),
    (["~study"], r""),
    (["--multirum"], r"no option --multirum; did you mean --multirun\?"),
    (["--config-dir"], r"--config-dir.*expected one argument"),
    (["--config-dir", "nowhere"], r"nowhere' not found"),
    (["-m", "seed=1", "--cfg", "job", "seed=2"], r"seed=2 stands after an option"),
    (["eps"], r"eps cannot be read as KEY=VALUE"),
    (["seed=[1"], r"seed=\[1 cannot be read"),
    (["attacker.cost.of=${nothing}"], r"'nothing' not found"),
    # Values.
    (["attacker.actions.eps=abc"], r"attacker.actions.eps=abc must be a number"),
    (["attacker.actions.eps=true"], r"eps=True must be a number"),
    (["attacker.actions.eps=-1"], r"attacker.actions.eps=-1 must be at least 0"),
    (["attacker.actions.eps=nan"], r"eps=nan must be a finite number"),
    (["attacker.actions.eps=inf"], r"attacker.actions.eps=inf must be a finite number"),
    (["attacker.actions.eps=1e308"], r"eps=1e\+308 must be at most 1e\+30 in size"),
    (["attacker.strategy.steps=" + "9" * 30], r"steps=9{30} must be at most 1000000000"),
    (["attacker/cost=query_price", "attacker.cost.price=inf"], r"price=inf must be a finite numb"),
    (["attacker.actions.eps=null"], r"eps=None must be a number"),
    (["attacker.actions.eps=???"], r"attacker.actions.eps"),
    (["attacker.strategy.steps=0"], r"steps=0 must be at least 1"),
    (["attacker.strategy.steps=1.5"], r"steps=1.5 must be a whole number"),
    (["defender.strategy.recipe.lr=0"], r"defender.strategy.recipe.lr=0 must be above 0"),
    (["game.test_share=2"], r"test_share=2 must be between 0 and 1"),
    (["game.device=gpu"], r"game.device=gpu must be one of auto, cpu, cuda"),
    (["learner.channels=16"], r"channels=16 must be a list"),
    (["learner.channels=[16,0]"], r"item 0 must be at least 1"),
    (["order.stages=[attacker]"], r"item 'attacker' must be a list"),
    (["seed=abc"], r"seed=abc must be a whole number"),
    (["batch_size=0"], r"batch_size=0 must be at least 1"),
    (["threads=0"], r"threads=0 must be at least 1"),
    (["study.rounds=0"], r"study.rounds=0 must be at least 1"),
    (["attacker.strategy=pgd"], r"attacker.strategy=pgd must be a node with a _target_"),
    (["attacker.strategy._target_=3"], r"_target_=3 must be a class"),
    (["attacker.strategy._target_=arena.attacks.pgd.PDG"], r"no class PDG; did you mean PGD\?"),
    (["attacker.strategy._target_=nowhere.Mine"], r"there is no module nowhere"),
    (["attacker.strategy._target_=arena.nowhere.Mine"], r"there is no module arena.nowhere"),
    (["attacker.actions.eps=-8/255"], r"attacker.actions.eps=-8/255 must be at least 0"),
    (["attacker.actions.eps=8/0"], r"attacker.actions.eps=8/0 must be a number"),
    (["attacker.actions.eps=8/x"], r"attacker.actions.eps=8/x must be a number"),
    (["attacker.actions.eps=nan/1"], r"attacker.actions.eps=nan/1 must be a finite number"),
    (["attacker.strategy.steps=8/4"], r"attacker.strategy.steps=8/4 must be a whole number"),
    (["attacker.actions.box=[0,1/0]"], r"box=\[0, '1/0'\] item '1/0' must be a number"),
    # Classes of another kind than the field asks for.
    (["attacker.strategy._target_=os.system"], r"_target_=os.system: os has no class system"),
    (["seed={_target_: os.getcwd}"], r"seed=.* must be a whole number"),
    (
        ["attacker.strategy._target_=arena.costs.ErrorRate"],
        r"_target_=arena.costs.ErrorRate does not derive, by its source, from arena.core.Strategy",
    ),
    (["game._target_=subprocess.Popen"], r"does not derive.* from arena.games.game.Game"),
    (["order._target_=subprocess.Popen"], r"does not derive.* from arena.core.MoveOrder"),
    (["attacker._target_=subprocess.Popen"], r"does not derive.* from arena.core.Player"),
    (["study._target_=subprocess.Popen"], r"does not derive.* from arena.studies.study.Study"),
    (["data._target_=subprocess.Popen"], r"does not derive.* from arena.data.source.Source"),
    (
        ["protocol=mixture", "protocol._target_=arena.core.MoveOrder"],
        r"protocol._target_=.* from arena.empirical.protocol.Protocol",
    ),
    (
        ["+attacker.strategy.fallback={_target_: os.system, command: ls}"],
        r"attacker.strategy.fallback: no such option",
    ),
    (
        ["attacker/strategy=foolbox", "+attacker.strategy.options.a={_target_: os.system}"],
        r"attacker.strategy.options.a._target_=os.system: os has no class system",
    ),
    (
        ["attacker/strategy=foolbox", "+attacker.strategy.options.a={_target_: subprocess.Popen}"],
        r"_target_=subprocess.Popen does not derive, by its source, from arena.fields.Declared or",
    ),
    (["+hydra.callbacks.mine._target_=os.getcwd"], r"hydra.callbacks"),
    (["hydra.callbacks.report._target_=os.getcwd"], r"hydra.callbacks"),
    # Declarations that contradict each other: nothing is trained.
    (["order.stages=[[defender],[attaker]]"], r"moves \['attaker', 'defender'\]; the players are"),
    (["order.stages=[]"], r"at least one stage"),
    (["attacker/knowledge=labels"], r"PGD needs a WhiteBox of the defender: .*parameters=true"),
    (["attacker/strategy=replay", "attacker/knowledge=labels"], r"use actions=pool"),
    (
        ["attacker.knowledge.queries=3", "attacker.knowledge.probe=none"],
        r"queries = 3 without a pro",
    ),
    (["attacker.strategy={_target_: arena.costs.ErrorRate}", "~attacker.strategy.steps"], r""),
    # What does not fit the data.
    (["game.examples=1", "game.revealed=1"], r"leaves none to score; lower it"),
    (["game.examples=5000"], r"examples=5000, but only 611 test examples are there; lower"),
    (["game.attacker_share=1"], r"leaves the defender nothing to train on"),
    (["attacker.actions.box=[0,2]"], r"box=\(0, 2\), but the data's is \(0.0, 1.0\)"),
    (["defender.actions.classes=3"], r"classes=3, but the data have 10"),
    (["learner.channels=[2,2,2,2]"], r"4 halvings cannot take inputs of shape \[1, 8, 8\]"),
    (["data=mnist", "data.path=/nowhere"], r"/nowhere is no folder; set data.path"),
    (["hydra.run.dir=/dev/null/x"], r"/dev/null/x: Not a directory"),
]


def assert_refused(said, expected):
    assert said.code == 2
    assert re.search(expected, said.err), said.err
    assert "Traceback" not in said.err and "Error executing" not in said.err
    assert 1 <= len(said.err.splitlines()) <= 2, said.err
    assert said.err.startswith("arena: ")


@pytest.mark.parametrize(
    ("arguments", "expected"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_a_mistake_is_told_in_two_lines(shell, tmp_path, arguments, expected):
    assert_refused(shell(*arguments), expected)
    assert not list(tmp_path.iterdir())


def test_cuda_asked_for_and_absent(shell, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(shell("game.device=cuda"), r"device=cuda, but torch sees no CUDA here")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("attacker.actions.epss=1", "did you mean attacker.actions.eps"),
        ("attacker.strategy.steps=many", "must be a whole number"),
        ("--helpp", "did you mean --help"),
        ("attacker/knowledge=labels", "PGD needs a WhiteBox of the defender"),
        ("defender/knowledge=task", "Retrain needs a SampleView of the attacker"),
    ],
)
def test_a_mistake_in_the_configuration_is_found_without_torch(argument, expected):
    program = "import sys; sys.modules['torch'] = None; from arena.__main__ import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", program, argument], capture_output=True, text=True, check=False
    )
    assert said.returncode == 2
    assert said.stderr.startswith("arena: ") and expected in said.stderr


def test_the_installed_commands(tmp_path):
    folder = os.path.dirname(sys.executable)

    def call(*command):
        return subprocess.run(
            [os.path.join(folder, command[0]), *command[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    helped = call("arena", "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "attacker/strategy: " in helped.stdout and "eps: " in helped.stdout
    lost = call("arena-report", "nowhere")
    assert (lost.returncode, lost.stderr) == (2, "arena-report: there is no folder nowhere\n")
    unplayable = call("arena", "attacker/strategy=replay")
    assert unplayable.returncode == 2
    assert unplayable.stderr.count("\n") == 1 and "use actions=pool" in unplayable.stderr


def arena(*arguments, folder):
    """Starts the installed command in a session of its own."""
    command = [sys.executable, "-m", "arena", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupted(process, ready):
    """What a command says, and its status, if Ctrl-C comes once `ready()`."""
    try:
        end = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, said = process.communicate(timeout=30)
        return process.returncode, said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


GO_ON = "\narena: interrupted; start the same command again to go on\n"


def test_ctrl_c_leaves_a_folder_to_go_on_in(shell, tmp_path):
    run = tmp_path / "run"
    arguments = [*TINY[:-1], f"hydra.run.dir={run}"]
    process = arena(*arguments, "study.rounds=100000", folder=tmp_path)
    assert interrupted(process, (run / "rounds.jsonl").is_file) == (130, GO_ON)
    lines = (run / "rounds.jsonl").read_text()
    more = len(lines.splitlines()) + 1
    said = shell(*arguments, f"study.rounds={more}")
    assert (said.code, said.err) == (0, "")
    assert (run / "rounds.jsonl").read_text().startswith(lines)
    assert len(read_rounds(run)) == more


def test_ctrl_c_ends_a_study_with_a_pool(mine, tmp_path):
    home, name = mine
    defense = f"{{_target_: arena.studies.roster.Defense, strategy: {{_target_: {name}.Sleeps}}}}"
    arguments = [
        "study=payoffs",
        *TINY[2:3],
        "~study.defenses",
        f"+study.defenses={{a: {defense}}}",
    ]
    process = arena(*arguments, "-cd", home, folder=tmp_path)
    assert interrupted(process, (tmp_path / "asleep").exists) == (130, GO_ON)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("Exits", r"sys.exit\(0\) was called in .*\.py, line \d+"),
        ("Odd", "odd, and no Exception"),
        ("Raises", "a bug of mine"),
    ],
)
def test_a_player_ends_its_own_run_alone(shell, mine, tmp_path, kind, said):
    home, name = mine
    folder = tmp_path / "sweep"
    strategies = f"{{_target_:{name}.{kind}}},{{_target_:{name}.Shift}}"
    where = [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=${hydra:job.num}"]
    group = ["~attacker.strategy", f"+attacker.strategy={strategies}"]
    found = shell("-m", *TINY, *group, *where, "--config-dir", home)
    assert found.code == 2
    assert re.search(f"arena: 1 of the sweep's runs failed:\n  0: {said}", found.err)
    rows = sweep(folder)
    assert re.search(said, rows["0"]["failed"]) and not rows["1"]["failed"]
    assert rows["1"]["attacked_error"]


def test_a_player_that_exits_ends_a_single_run_with_its_place(shell, mine, tmp_path):
    home, name = mine
    group = ["~attacker.strategy", f"+attacker.strategy={{_target_: {name}.Exits}}"]
    said = shell(*TINY, *group, "--config-dir", home)
    assert_refused(said, rf"sys.exit\(0\) was called in .*{name}.py, line \d+")


def test_a_player_that_exits_ends_its_match_of_a_study_alone(shell, mine, tmp_path):
    home, name = mine
    attack = "{{_target_: arena.studies.roster.Attack, strategy: {{_target_: {0}.{1}}}}}"
    attacks = ", ".join(f"{kind}: {attack.format(name, kind)}" for kind in ("Exits", "Raises"))
    common = f"{{{attacks}, shift: {attack.format(name, 'Shift')}}}"
    defense = (
        "{_target_: arena.studies.roster.Defense, strategy: {_target_: arena.defenses.erm.ERM, "
        "learner: ${learner}, epochs: 1}}"
    )
    said = shell(
        "study=payoffs",
        *(word for word in TINY if word.startswith(("learner", "game"))),
        *("~study.attacks", f"+study.attacks={common}"),
        *("~study.defenses", f"+study.defenses={{none: {defense}}}"),
        "study.executor={_target_: arena.executors.executor.Serial}",
        "~study.executor.workers",
        *("--config-dir", home),
    )
    assert (said.code, said.err) == (0, "")
    assert re.search(r"sys.exit\(0\) was called in", said.out)
    assert "RuntimeError in" in said.out and "a bug of mine" in said.out


@pytest.mark.parametrize("eps", ["8", "1", "1.0"])
def test_a_radius_as_wide_as_the_box_is_asked_about(shell, eps):
    said = shell(*TINY, f"attacker.actions.eps={eps}")
    asked = (
        f"eps={float(eps):g} reaches every input of the box [0, 1]; was {float(eps):g}/255 meant?"
    )
    assert (said.code, said.err) == (0, f"arena: attacker.actions.{asked}\n")


def test_a_radius_below_the_width_of_the_box_is_not_asked_about(shell):
    said = shell(*TINY, "attacker.actions.eps=0.99")
    assert (said.code, said.err) == (0, "")


# Refused commands leave nothing.


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "attacker.actions.eps=-1,-2"],
        ["-m", "attacker/knowledge=labels,scores"],
        ["-m", "attacker.actions.epss=1,2"],
        ["-m", "attacker/strategy=pgd,pdg"],
        ["hydra.run.dir=a/b/c", "attacker.actions.eps=-1"],
        ["hydra.run.dir=a/b/c", "data=mnist", "data.path=/nowhere"],
    ],
    ids=" ".join,
)
def test_a_refused_command_leaves_no_folder(shell, tmp_path, arguments):
    assert shell(*arguments).code == 2
    assert not list(tmp_path.iterdir())


def test_a_refused_command_leaves_what_was_there(shell, tmp_path):
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    (tmp_path / "mine.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    for run in ("empty", "empty/inside", "empty/new/er"):
        assert shell(f"hydra.run.dir={run}", "attacker.actions.eps=-1").code == 2
        assert sorted(tmp_path.rglob("*")) == before


def test_the_traceback_can_be_asked_for(shell, monkeypatch):
    monkeypatch.setenv("ARENA_TRACEBACK", "1")
    with pytest.raises(ValueError, match="must be at least 0"):
        shell("attacker.actions.eps=-1")


# The folder of a run.


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_another_configuration_is_refused_unchanged(shell, tmp_path):
    where = f"hydra.run.dir={tmp_path / 'run'}"
    assert shell(*TINY, where).code == 0
    before = contents(tmp_path)
    for other in ("attacker.actions.eps=0.1", "order=attacker_first", "study=who_moves_first"):
        arguments = TINY if "study" not in other else TINY[:-1]
        said = shell(*arguments, where, other)
        assert_refused(said, r"run holds a run of another configuration; choose another folder")
        assert contents(tmp_path) == before


@pytest.mark.parametrize("lock", [".run.lock", ".lock"])
def test_a_folder_being_written_is_refused_unchanged(shell, tmp_path, lock):
    where = f"hydra.run.dir={tmp_path / 'run'}"
    assert shell(*TINY, where).code == 0
    before = contents(tmp_path)
    with held(tmp_path / "run" / lock):
        assert_refused(shell(*TINY, where), r"run is being written by another process; wait")
    assert contents(tmp_path) == before


def test_a_mistake_in_the_data_leaves_the_folder_free(shell, tmp_path):
    where = f"hydra.run.dir={tmp_path / 'run'}"
    assert_refused(shell("data=mnist", "data.path=/nowhere", where), r"/nowhere is no folder")
    assert shell(*TINY, where).code == 0


def test_a_damaged_checkpoint_is_named(shell, tmp_path):
    where = f"hydra.run.dir={tmp_path / 'run'}"
    assert shell(*TINY, where).code == 0
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    before = contents(tmp_path)
    assert_refused(shell(*TINY, where), rf"{path} is damaged .*; remove the folder to start anew")
    assert contents(tmp_path) == before


def test_a_full_disk(shell, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    where = f"hydra.run.dir={tmp_path / 'run'}"
    assert shell(*TINY, where).code == 0
    more = [*TINY[:-1], "study.rounds=2", where]
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert_refused(shell(*more), r"the disk is full; .*start again: finished rounds are kept")
    assert len(read_rounds(tmp_path / "run")) == 1
    assert shell(*more).code == 0
    assert len(read_rounds(tmp_path / "run")) == 2


def test_a_report_lost_to_a_kill_is_written_by_the_next_start(shell, tmp_path):
    where = f"hydra.run.dir={tmp_path / 'run'}"
    assert shell(*TINY, where).code == 0
    page = (tmp_path / "run" / "report.html").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    assert shell(*TINY, where).code == 0
    assert (tmp_path / "run" / "report.html").read_bytes() == page


# Sweeps.


def sweep(folder):
    with open(folder / "sweep.csv", encoding="utf-8", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_a_failing_corner_of_a_sweep_does_not_lose_the_others(shell, tmp_path, monkeypatch):
    folder = tmp_path / "sweep"
    where = [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=${attacker.actions.eps}"]
    said = shell("-m", *TINY, "attacker.actions.eps=0.1,-1,0.3", *where)
    assert said.code == 2 and "Traceback" not in said.err
    assert "arena: 1 of the sweep's runs failed:\n  -1: attacker.actions.eps=-1 must" in said.err
    assert "must be at least 0" in (folder / "-1" / "failed.txt").read_text()
    rows = sweep(folder)
    assert set(rows) == {"0.1", "-1", "0.3"}
    assert "must be at least 0" in rows["-1"]["failed"]
    assert all(rows[eps]["attacked_error"] and not rows[eps]["failed"] for eps in ("0.1", "0.3"))
    # Runs are called by what sets them apart, whatever their folders' names.
    assert [rows[eps]["attacker.actions.eps"] for eps in ("0.1", "0.3")] == ["0.1", "0.3"]
    assert not set(rows["0.1"]) & {word.partition("=")[0] for word in TINY}
    assert "attacker.actions.eps=0.1" in said.out

    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    monkeypatch.setattr(sys, "argv", ["arena-report", str(folder)])
    report.main()
    assert (folder / "report.html").read_bytes() == page

    # The others are found finished; the corner is free once its mistake is mended.
    said = shell("-m", *TINY, "attacker.actions.eps=0.1,0.3", *where)
    assert said.code == 0 and said.out.count("nothing to do") == 2


def test_a_corner_with_a_bug_shows_it_and_does_not_lose_the_others(shell, mine, tmp_path):
    home, name = mine
    for kind in ("Shift", "Raises"):
        yaml = home / "attacker" / "strategy" / f"{kind.lower()}.yaml"
        yaml.write_text(f"_target_: {name}.{kind}\n")
    where = [f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    said = shell("-m", *TINY, "attacker/strategy=raises,shift", *where, "--config-dir", home)
    assert said.code == 2
    assert "RuntimeError: a bug of mine" in said.err  # with the traceback: it is code, not input
    failed = [row["failed"] for row in sweep(tmp_path / "sweep").values()]
    assert sorted(failed) == ["", "a bug of mine"]


def test_a_mistyped_option_of_a_sweep_is_found_before_anything_runs(shell, tmp_path):
    assert_refused(shell("-m", *TINY, "attacker/strategy=fgsm,pdg"), r"did you mean pgd\?")
    assert_refused(
        shell("-m", *TINY, "attacker.actions.epss=0.1,0.2"), r"did you mean .*actions.eps"
    )
    assert not list(tmp_path.rglob("rounds.jsonl"))


# Reports.


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x", "", "holds no run and no sweep"),
        ("rounds.jsonl", '{"torn', "holds no finished round"),
        ("study.json", "{", r"study.json is damaged"),
        ("study.json", "{}", r"study.json is damaged"),
    ],
)
def test_report_of_a_folder_without_anything(
    tmp_path, monkeypatch, capsys, name, content, expected
):
    (tmp_path / name).write_text(content)
    monkeypatch.setattr(sys, "argv", ["arena-report", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        report.main()
    assert end.value.code == 2
    assert re.fullmatch(f"arena-report: .*{expected}.*\n", capsys.readouterr().err)


# Data.


def write_mnist(folder, n=4, labels=None, pixels=None):
    folder.mkdir()
    for part in ("train", "t10k"):
        body = bytes(n * 784) if pixels is None else pixels
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 0x803, n, 28, 28) + body
        )
        body = bytes(range(n)) if labels is None else labels
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, n) + body)
    return folder


DAMAGE = {
    "cut": (lambda f: f.write_bytes(f.read_bytes()[:-9]), "header promises 3136 bytes, 3127 are"),
    "empty": (lambda f: f.write_bytes(b""), "train-images-idx3-ubyte is damaged"),
    "other": (lambda f: f.write_bytes(b"PNG?" * 99), "is no IDX file of 3 dimensions"),
    "gone": (lambda f: f.unlink(), r"train-images-idx3-ubyte\[.gz\] is missing"),
    "gz": (
        lambda f: (f.unlink(), f.with_suffix(".gz").write_bytes(gzip.compress(bytes(99))[:-30])),
        "train-images-idx3-ubyte.gz is damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(shell, tmp_path, damage):
    folder = write_mnist(tmp_path / "data")
    does, expected = DAMAGE[damage]
    does(folder / "train-images-idx3-ubyte")
    said = shell("data=mnist", f"data.path={folder}")
    assert_refused(said, expected)
    assert str(folder) in said.err


def test_no_examples_and_labels_outside_the_classes(shell, tmp_path):
    empty = write_mnist(tmp_path / "empty", n=0)
    assert_refused(shell("data=mnist", f"data.path={empty}"), r"empty.* no examples")
    strange = write_mnist(tmp_path / "strange", labels=bytes([0, 1, 2, 200]))
    assert_refused(
        shell("data=mnist", f"data.path={strange}"), r"label 200 of example 3 is outside"
    )


# A user's own classes.

MINE = '''
import sys
import time
from pathlib import Path
from dataclasses import dataclass, replace
from typing import Annotated
import torch
from arena import Classifier, Labelled, Strategy, WhiteBox
from arena.data.source import Source
from arena.data.digits import Digits
from arena.defenses.fixed import Fixed
from arena.fields import Count, NonNegative

@dataclass(frozen=True)
class Shift(Strategy):
    """Adds `by` to a corner, 0 in all of the digits, from example 17 on."""
    by: NonNegative = 0.0
    def respond(self, turn):
        x = turn.data.x.clone()
        x[17:, 0, 0, 0] += self.by
        return x

@dataclass(frozen=True)
class Spoilt(Source):
    """Digits with one value put in."""
    value: str
    def load(self):
        data, _ = Digits().load()
        x = data.x.clone()
        x[5, 0, 0, 0] = float(self.value)
        return replace(data, x=x).validated("spoilt digits"), None

class NaN(Classifier):
    """Always 0, but not finite where that corner is not 0, or everywhere."""
    classes = 10
    def __init__(self, everywhere):
        self.everywhere = everywhere
    def logits(self, x):
        logits = torch.eye(10)[torch.zeros(len(x), dtype=torch.long)].clone()
        logits[(x[:, 0, 0, 0] != 0) | self.everywhere, 0] = float("nan")
        return logits

@dataclass(frozen=True)
class Broken(Strategy):
    """A defender whose logits are not finite."""
    everywhere: bool = True
    def respond(self, turn):
        return NaN(self.everywhere)

@dataclass(frozen=True)
class Raises(Strategy):
    """A strategy with a bug."""
    def respond(self, turn):
        raise RuntimeError("a bug of mine")

class Bare(Strategy):
    """A strategy that is no dataclass."""
    def __init__(self, size):
        self.size = size
    def respond(self, turn):
        raise NotImplementedError

class Late(Strategy):
    """A class that the module no longer has once it is imported."""
del Late

class Exits(Strategy):
    """A strategy that would end the process, and say that all is well."""
    def respond(self, turn):
        sys.exit(0)

class Oddity(BaseException):
    pass

class Odd(Strategy):
    """A strategy that raises what is no Exception."""
    def respond(self, turn):
        raise Oddity("odd, and no Exception")

class Sleeps(Strategy):
    """A defender that takes its time."""
    exposes = WhiteBox
    def respond(self, turn):
        Path("asleep").touch()
        time.sleep(600)

class Loose:
    """No dataclass, and no strategy."""
    def __init__(self, size):
        self.size = size
'''


@pytest.fixture
def mine(tmp_path, request):
    """A folder with a user's module, under a name of its own, and a yaml beside it."""
    name = re.sub(r"\W", "_", request.node.name)
    home = tmp_path / "home"
    (home / "attacker" / "strategy").mkdir(parents=True)
    (home / f"{name}.py").write_text(MINE)
    (home / "attacker" / "strategy" / "mine.yaml").write_text(f"_target_: {name}.Shift\nby: 0.01\n")
    yield home, name
    sys.modules.pop(name, None)


def test_a_strategy_of_ones_own_beside_its_yaml(shell, mine):
    home, _ = mine
    for option in (["--config-dir", home], [f"--config-dir={home}"], ["-cd", home]):
        said = shell(*TINY, "attacker/strategy=mine", *option)
        assert (said.code, said.err) == (0, "")
    said = shell(*TINY, "attacker/strategy=mien", "--config-dir", home)
    assert_refused(said, r"no option mien; did you mean mine\?")
    said = shell("attacker/strategy=mine", "attacker.strategy.bye=1", "--config-dir", home)
    assert_refused(said, r"no option attacker.strategy.bye; did you mean attacker.strategy.by\?")
    said = shell("attacker/strategy=mine", "attacker.strategy.by=-1", "--config-dir", home)
    assert_refused(said, r"attacker.strategy.by=-1 must be at least 0")


def lines(text):
    return "\n".join(line.strip() for line in text.strip().splitlines()) + "\n"


SPY = """
from pathlib import Path
Path("imported.txt").touch()
"""


@pytest.mark.parametrize(
    "override",
    [
        "attacker.strategy._target_=spy.Popen",
        "attacker.strategy._target_=spy.call",
        "attacker.strategy._target_=spy.Absent",
        "attacker.strategy._target_=spy_package.Popen",
        "attacker.strategy._target_=spy_package.inner.Popen",
        "attacker.strategy._target_=spy_package.inner.Absent",
        "attacker._target_=spy.Popen",
        "study._target_=spy_package.inner.Popen",
        "defender.cost._target_=spy.Popen",
        "+attacker.strategy.extra={_target_: spy.Popen}",
        "attacker.strategy={_target_: arena.defenses.fixed.Fixed, model: {_target_: spy.Popen}}",
        "defender.strategy={_target_: arena.defenses.fixed.Fixed, model: {_target_: spy.call}}",
    ],
)
def test_nothing_is_imported_that_no_field_asks_for(shell, tmp_path, override):
    call = lines("def call(*_, **__): Path('called.txt').touch()")
    cls = lines("class Popen:\ndef_").replace("def_", "    def __init__(self, **_): call()")
    (tmp_path / "spy_package").mkdir()
    for name in ("spy", "spy_package/__init__", "spy_package/inner"):
        (tmp_path / f"{name}.py").write_text(SPY + call + cls)
    group = override.lstrip("+").partition("=")[0]
    replaced = [f"~{group}", f"+{override}"] if "={" in override and override[0] != "+" else []
    assert_refused(shell(*(replaced or [override])), r"(spy|no such option)")
    assert {path.name for path in tmp_path.iterdir()} <= {"spy.py", "spy_package", "runs"}


LINEAGES = {
    # How a class can say what it derives from: files, and the target.
    "directly": (
        {"direct.py": "from arena.core import Strategy\nclass Mine(Strategy): ...\n"},
        "direct.Mine",
    ),
    "by the public name": (
        {"public.py": "import arena\nclass Mine(arena.Strategy): ...\n"},
        "public.Mine",
    ),
    "by another name": (
        {"other.py": "from arena import core as c\nclass Mine(c.Strategy): ...\n"},
        "other.Mine",
    ),
    "through a class of its module": (
        {
            "chain.py": "from arena.attacks.pgd import PGD\nclass Own(PGD): ...\n"
            "class Mine(Own): ...\n"
        },
        "chain.Mine",
    ),
    "in a package": (
        {
            "kit/__init__.py": "from .attacks import Mine\n",
            "kit/attacks.py": "from .roots import Root\nclass Mine(Root): ...\n",
            "kit/roots.py": "from arena.core import Strategy\nclass Root(Strategy): ...\n",
        },
        "kit.Mine",
    ),
    "in folders without __init__": (
        {
            "plain/deep/attacks.py": "from .roots import Root\nclass Mine(Root): ...\n",
            "plain/deep/roots.py": "from arena.core import Strategy\nclass Root(Strategy): ...\n",
        },
        "plain.deep.attacks.Mine",
    ),
    "generically": (
        {
            "generic.py": "from typing import Generic, TypeVar\nfrom arena.core import Strategy\n"
            "T = TypeVar('T')\nclass Own(Strategy, Generic[T]): ...\nclass Mine(Own[int]): ...\n"
        },
        "generic.Mine",
    ),
}


@pytest.mark.parametrize("lineage", LINEAGES)
def test_a_class_may_say_in_any_way_what_it_derives_from(tmp_path, monkeypatch, lineage):
    files, target = LINEAGES[lineage]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert schema.derives(target, "arena.core.Strategy")
    assert not schema.derives(target, "arena.core.Cost")
    assert target.split(".")[0] not in sys.modules


def test_a_folder_is_not_named_after_another_number():
    assert run_name(["attacker.actions.eps=8/255"]) == "attacker.actions.eps=8_255"
    assert run_name(["attacker/strategy=fgsm", "study=match"]) == "attacker.strategy=fgsm"


def test_a_fraction_is_read_as_a_number(shell, tmp_path):
    where = f"hydra.run.dir={tmp_path / 'run'}"
    assert shell(*TINY, where, "attacker.actions.eps=8/255").code == 0
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert f"eps: {8 / 255}" in config
    said = shell(*TINY, where, f"attacker.actions.eps={8 / 255}")
    assert (said.code, said.err) == (0, "") and "nothing to do" in said.out  # the same match
    home = tmp_path / "home"
    home.mkdir()
    (home / "attacker" / "actions").mkdir(parents=True)
    (home / "attacker" / "actions" / "mine.yaml").write_text(
        "_target_: arena.actions.lp.Linf\neps: 8/255\nbox: [0.0, 255/255]\n"
    )
    said = shell(*TINY, where, "attacker/actions=mine", "--config-dir", home)
    assert (said.code, said.err) == (0, "") and "nothing to do" in said.out


def test_an_illegal_move_names_the_example_and_by_how_much(shell, mine):
    home, _ = mine
    arguments = ["attacker/strategy=mine", "attacker.strategy.by=0.5", "attacker.actions.eps=0.1"]
    said = shell(*TINY, *arguments, "--config-dir", home)
    assert_refused(said, r"attacker's input 17 is outside Linf\(eps=0\.1.*0\.5")


def test_answers_that_are_not_finite_are_counted_apart(shell, mine, tmp_path):
    home, name = mine
    defender = f"defender.strategy={{_target_: {name}.Broken, everywhere: false}}"
    said = shell(
        *TINY[2:],
        "game.revealed=0",
        "attacker/strategy=mine",
        "~defender.strategy",
        f"+{defender}",
        "-cd",
        home,
    )
    assert (said.code, said.err) == (0, "")
    (folder,) = (path.parent for path in tmp_path.rglob("rounds.jsonl"))
    (line,) = read_rounds(folder)
    metrics = line["metrics"]
    assert 0 < metrics["no_answer"] <= metrics["attacked_error"]
    assert "attacked inputs got NaN or infinite logits" in line["notes"][0]
    costs = load_file(folder / "outcomes.safetensors")["defender"]
    assert metrics["attacked_error"] == float(costs.mean())
    assert "no answer" in said.out


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            'game.source={_target_: NAME.Spoilt, value: "2"}',
            r"input 5 has values in .*outside the bo",
        ),
        ('game.source={_target_: NAME.Spoilt, value: "nan"}', r"spoilt digits: input 5 holds NaN"),
        ('game.source={_target_: NAME.Spoilt, value: "inf"}', r"input 5 holds NaN or infinity"),
        ("game.source={_target_: NAME.Spoilt}", r"game.source.value is missing: NAME.Spoilt nee"),
        (
            "attacker.strategy={_target_: NAME.Shfit}",
            r"has no class Shfit; did you mean Shift\?",
        ),
        ("attacker.strategy={_target_: NAME.Shift, bi: 2}", r"strategy.bi: no such option of NAME"),
        (
            "attacker.strategy={_target_: NAME.Loose}",
            r"Loose does not derive.* arena.core.Strategy",
        ),
        (
            "attacker.strategy={_target_: NAME.Bare}",
            r"cannot be made: .*missing 1 .*'size'",
        ),
        ("attacker.strategy={_target_: NAME.Late}", r"_target_=NAME.Late cannot be loaded: .*Late"),
        ("defender.strategy={_target_: NAME.Broken}", r"logits are NaN or infinite on clean input"),
    ],
)
def test_mistakes_with_ones_own_classes(shell, mine, override, expected):
    home, name = mine
    override = override.replace("NAME", name)
    group = override.partition("=")[0]
    said = shell(*TINY[2:], "attacker/strategy=honest", f"~{group}", f"+{override}", "-cd", home)
    assert_refused(said, expected.replace("NAME", name))
