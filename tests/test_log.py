"""A run's folder: atomic, held by one process, of one configuration, and complete."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from damage import each_flipped
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import arena
from arena import Arena, Knowledge, MoveOrder, Player
from arena.actions.decisions import Confidence
from arena.actions.lp import Linf
from arena.attacks.pgd import PGD
from arena.checksums import sealed_line
from arena.costs import ErrorRate, Negation
from arena.data.digits import Digits
from arena.defenses.erm import ERM
from arena.defenses.retrain import Retrain
from arena.events import Events
from arena.files import atomically, held
from arena.games.evasion import Evasion
from arena.learners.networks import MLP
from arena.log import CHECKPOINT, LOG, RunLog, claim, read_checkpoint, read_rounds
from arena.modules import UNKNOWN
from arena.record import Record

CONFIG = {"a": 1, "study": {"_target_": "S", "rounds": 3}}


def record(number, payoff=0.5):
    return Record(
        round=number,
        order="defender > attacker",
        saw={},
        payoffs={"attacker": payoff},
        standard_errors={"attacker": float("nan")},
        zero_sum=True,
        metrics={"attacked_error": payoff},
        seconds={"attacker": 0.25},
        costs={"attacker": torch.tensor([-payoff, float("nan")], dtype=torch.float64)},
    )


def state(number):
    shown = [{"x": torch.full((2,), float(i))} for i in range(number + 1)]
    standing = {"attacker": {"x": torch.ones(2)}}
    return {"rounds_played": number + 1, "standing": standing, "revealed": {"attacker": shown}}


def play(folder, rounds, config=CONFIG, sources=None):
    with RunLog(folder, config, sources=sources) as log:
        for number in range(len(log.lines), rounds):
            log.write(record(number), state(number))
        return log


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_atomically_replaces_a_file_and_leaves_no_scratch(tmp_path):
    atomically(tmp_path / "a", b"old")
    atomically(tmp_path / "a", b"new")
    assert contents(tmp_path) == {tmp_path / "a": b"new"}


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_scratch(tmp_path, monkeypatch, fails):
    atomically(tmp_path / "a", b"old")
    monkeypatch.setattr(os, fails, full_disk)
    with pytest.raises(OSError, match="No space left"):
        atomically(tmp_path / "a", b"new")
    assert contents(tmp_path) == {tmp_path / "a": b"old"}


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_loses_no_finished_round(tmp_path, monkeypatch, fails):
    play(tmp_path, 2)
    before = {
        path: held for path, held in contents(tmp_path).items() if "tfevents" not in path.name
    }
    with monkeypatch.context() as patched, pytest.raises(OSError), RunLog(tmp_path, CONFIG) as log:
        patched.setattr(os, fails, full_disk)
        log.write(record(2), state(2))
    after = contents(tmp_path)
    assert all(after[path].startswith(held) for path, held in before.items())
    assert [path for path in before if after[path] != before[path]] in ([], [tmp_path / LOG])
    assert [line["round"] for line in play(tmp_path, 3).lines] == [0, 1, 2]


def test_a_full_disk_stops_the_events_with_an_oserror(tmp_path):
    # /dev/full answers every write as a full disk does.
    events = Events(tmp_path)
    events._path.unlink()
    events._path.symlink_to("/dev/full")
    with pytest.raises(OSError) as found:
        events.round(record(0))
    assert found.value.errno == errno.ENOSPC


def test_what_is_written_comes_back(tmp_path):
    played = play(tmp_path, 3)
    with RunLog(tmp_path, CONFIG) as log:
        assert len(log.lines) == 3
        assert torch.equal(log.outcomes["attacker"][:, 0], torch.full((3,), -0.5).double())
        assert log.outcomes["attacker"].isnan()[:, 1].all()
        assert log.state["rounds_played"] == played.state["rounds_played"] == 3
        shown = [batch["x"].tolist() for batch in log.state["revealed"]["attacker"]]
        assert shown == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    line = read_rounds(tmp_path)[2]
    assert (line["round"], line["payoffs"]) == (2, {"attacker": 0.5})
    assert line["standard_errors"] == {"attacker": None}  # JSON has no NaN


def test_the_checkpoint_is_data_and_no_code(tmp_path):
    play(tmp_path, 1)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert saved["state"]["rounds_played"] == 1


@pytest.mark.parametrize("name", [CHECKPOINT, LOG])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "other"])
def test_a_damaged_checkpoint_is_named_and_nothing_is_changed(tmp_path, name, damage):
    play(tmp_path, 1)
    path = tmp_path / name
    whole = path.read_bytes()
    if damage == "other":
        torch.save({"identity": torch.zeros(len(whole))}, path)
    else:
        noise = b"x" * len(whole)
        path.write_bytes({"cut": whole[: len(whole) // 2], "noise": noise, "empty": b""}[damage])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"{name} is damaged.*remove the folder"):
        play(tmp_path, 2)
    assert contents(tmp_path) == before


def test_a_checkpoint_without_its_log_is_named(tmp_path):
    play(tmp_path, 1)
    (tmp_path / LOG).unlink()
    with pytest.raises(ValueError, match=rf"there is no {LOG} beside it\); remove the folder"):
        play(tmp_path, 2)


@pytest.mark.parametrize("name", [CHECKPOINT, LOG])
def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path, name):
    play(tmp_path, 3)
    for _ in each_flipped(tmp_path / name, samples=400):
        with pytest.raises(ValueError, match=rf"{name} is damaged \(.*\); remove the folder"):
            read_checkpoint(tmp_path)
    assert len(read_checkpoint(tmp_path)["lines"]) == 3


def test_no_flipped_bit_of_a_line_goes_unnoticed(tmp_path):
    play(tmp_path, 3)
    path = tmp_path / "rounds.jsonl"
    for bit in each_flipped(path, samples=400):
        number = path.read_bytes()[: bit // 8].count(b"\n") + 1
        with pytest.raises(ValueError, match=rf"rounds\.jsonl is damaged \(line {number} does not"):
            read_rounds(tmp_path)
    assert len(read_rounds(tmp_path)) == 3


def test_what_a_round_writes_does_not_grow_with_their_number(tmp_path, monkeypatch):
    written = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (written.append(os.fstat(fd).st_size), fsync(fd)))
    sizes = []
    with RunLog(tmp_path, CONFIG) as log:
        for number in range(40):
            files = [tmp_path / LOG, tmp_path / "rounds.jsonl"]
            grown = sum(path.stat().st_size for path in files if path.exists())
            written.clear()
            log.write(record(number), state(number))
            assert len(written) == 3  # the log, the checkpoint, the line
            sizes.append(sum(path.stat().st_size for path in files) - grown + written[1])
    # Numbers of two digits and the log's length take a few bytes more; torch aligns by 64.
    assert max(sizes[10:]) <= max(sizes[:10]) + 256
    assert len(log.outcomes["attacker"]) == 40 == len(log.lines)


def test_a_record_that_no_checkpoint_took_up_is_written_again(tmp_path):
    play(tmp_path / "broken", 2)
    with open(tmp_path / "broken" / LOG, "ab") as file:
        file.write(b"half of a record")
    play(tmp_path / "broken", 3)
    play(tmp_path / "whole", 3)
    for name in (LOG, CHECKPOINT, "rounds.jsonl", "outcomes.safetensors"):
        kept = [(tmp_path / folder / name).read_bytes() for folder in ("broken", "whole")]
        assert kept[0] == kept[1]


def test_a_folder_of_other_code_is_refused_unchanged(tmp_path):
    code = {"arena/attacks/pgd.py": "1", "mine.py": "2", "torch": "2.8"}
    play(tmp_path, 1, sources=code)
    play(tmp_path, 2, sources=code)
    before = contents(tmp_path)
    for change, named in [
        ({"arena/attacks/pgd.py": "3"}, r"arena/attacks/pgd\.py changed"),
        ({"new.py": "3"}, r"new\.py changed"),
        ({"torch": "2.9"}, r"torch \(2\.8, now 2\.9\) changed"),
        (
            {"mine.py": "3", "a.py": "4", "b.py": "5", "c.py": "6"},
            r"a\.py, b\.py, c\.py and 1 more",
        ),
        ({"mine.py": UNKNOWN}, r"mine\.py \(which has no file\) changed"),
    ]:
        refused = rf"holds a run of other code: {named}.*choose another folder with hydra\.run\.dir"
        with pytest.raises(ValueError, match=refused):
            play(tmp_path, 3, sources=code | change)
        assert contents(tmp_path) == before
    assert len(play(tmp_path, 3, sources=code).lines) == 3


def test_readable_files_are_made_from_the_checkpoint_again(tmp_path):
    play(tmp_path, 3)
    whole = contents(tmp_path)
    (tmp_path / "rounds.jsonl").write_bytes((tmp_path / "rounds.jsonl").read_bytes()[:-20])
    (tmp_path / "outcomes.safetensors").unlink()
    play(tmp_path, 3)
    assert contents(tmp_path) == whole


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "rounds.jsonl"
    lines = [sealed_line({"round": number, "order": "café"}) for number in range(3)]
    for torn in range(len(lines[2])):
        path.write_bytes(lines[0] + lines[1] + lines[2][:torn])
        assert [line["round"] for line in read_rounds(tmp_path)] == [0, 1]
    path.write_bytes(lines[0] + lines[1][:-9] + lines[2])
    with pytest.raises(
        ValueError, match=r"line 2 does not fit its checksum\); start the run again"
    ):
        read_rounds(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no run"):
        read_rounds(tmp_path)


def test_a_folder_of_another_configuration_is_refused_unchanged(tmp_path):
    play(tmp_path, 1)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"another configuration.*hydra\.run\.dir"):
        play(tmp_path, 2, {**CONFIG, "a": 2})
    assert contents(tmp_path) == before


def test_two_logs_cannot_hold_a_folder(tmp_path):
    refused = pytest.raises(BlockingIOError, match="being written by another process")
    with RunLog(tmp_path, CONFIG):
        before = contents(tmp_path)
        with refused, RunLog(tmp_path, CONFIG):
            pass
        assert contents(tmp_path) == before
    play(tmp_path, 1)  # and it is free again


# Counts in a file as only one process at a time may.
COUNT = """
import sys
from pathlib import Path
from arena.files import held
number = Path("number")
for _ in range(100):
    with held(Path(".lock"), wait=True):
        number.write_text(str(int(number.read_text()) + 1))
"""


def test_processes_take_turns_and_leave_no_lock(tmp_path):
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", COUNT]
    environment = {**os.environ, "PYTHONPATH": str(Path(arena.__file__).parent.parent)}
    counting = [subprocess.Popen(command, cwd=tmp_path, env=environment) for _ in range(4)]
    assert [process.wait() for process in counting] == [0, 0, 0, 0]
    assert (tmp_path / "number").read_text() == "400"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_a_lock_that_a_killed_process_left_is_free(tmp_path):
    (tmp_path / ".lock").touch()
    with held(tmp_path / ".lock"), pytest.raises(BlockingIOError), held(tmp_path / ".lock"):
        pass
    assert not list(tmp_path.iterdir())


def _hold(lock, held_now, let_go):
    with held(lock):
        held_now.set()
        let_go.wait(60)


def test_another_process_keeps_this_one_out_until_it_dies(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    held_now, let_go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(tmp_path / ".lock", held_now, let_go))
    other.start()
    try:
        assert held_now.wait(60)
        with pytest.raises(BlockingIOError, match="wait for it, or choose another folder"):
            play(tmp_path, 1)
    finally:
        other.kill()
        other.join()
    play(tmp_path, 1)


def test_a_folder_belongs_to_a_configuration_from_the_first_round_on(tmp_path):
    other = {**CONFIG, "a": 2}
    with claim(tmp_path, CONFIG, [], {}):
        pass  # say, the data were not there
    with claim(tmp_path, other, ["a=2"], {"a": 2}):
        play(tmp_path, 1, other)
    before = contents(tmp_path)
    refused = pytest.raises(ValueError, match="another configuration")
    with refused, claim(tmp_path, CONFIG, [], {}):
        pass
    assert contents(tmp_path) == before
    more = {**other, "study": {"_target_": "S", "rounds": 9}}
    with claim(tmp_path, more, [], {}):
        pass
    with refused, claim(tmp_path, {**other, "study": {"_target_": "T"}}, [], {}):
        pass
    busy = pytest.raises(BlockingIOError)
    with claim(tmp_path, more, [], {}), busy, claim(tmp_path, more, [], {}):
        pass
    (tmp_path / ".hydra" / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"), claim(tmp_path, more, [], {}):
        pass


def test_events_of_a_round_that_is_played_again_are_replaced(tmp_path):
    killed = Events(tmp_path, 0, {"order": "x"})
    for number in range(3):
        killed.round(record(number, payoff=0.25))
    killed._path.rename(tmp_path / "events.out.tfevents.0000000001.before")
    gone_on = Events(tmp_path, 2)
    for number in (2, 3):
        gone_on.round(record(number, payoff=0.75))
    found = EventAccumulator(str(tmp_path)).Reload()
    scalars = [(event.step, event.value) for event in found.Scalars("payoff/attacker")]
    assert scalars == [(0, 0.25), (1, 0.25), (2, 0.75), (3, 0.75)]


def test_events_show_the_inputs(tmp_path):
    few = {"clean": torch.zeros(2, 1, 8, 8), "attacked": torch.ones(2, 1, 8, 8)}
    few |= {name: torch.tensor([1, 2]) for name in ("y", "clean_answer", "attacked_answer")}
    shown = record(0)
    shown.exhibit.update(few)
    Events(tmp_path).round(shown)
    (image,) = EventAccumulator(str(tmp_path)).Reload().Images("inputs")
    assert (image.width, image.height) == (2 * 96, 2 * (96 + 16))
    assert image.encoded_image_string.startswith(b"\x89PNG")


def match(order):
    players = {
        "attacker": Player(
            Linf(0.2), Negation(ErrorRate()), Knowledge.white_box(), PGD(steps=2, step=0.5)
        ),
        "defender": Player(
            Confidence(10), ErrorRate(), Knowledge(samples=True), Retrain(ERM(MLP(()), epochs=2))
        ),
    }
    return Arena(Evasion(Digits(), examples=40, device="cpu"), players, order)


@pytest.mark.parametrize("order", ["attacker_first", "simultaneous", "defender_first"])
def test_a_match_goes_on_bit_for_bit_from_its_checkpoint(tmp_path, order):
    order = getattr(MoveOrder, order)()
    whole = match(order)
    begun = []
    with RunLog(tmp_path, CONFIG) as log:
        for made in whole.play(4):
            begun.append(made)
            if made.round < 2:
                log.write(made, whole.state_dict())
    second = match(order)
    second.load_state_dict(read_checkpoint(tmp_path)["state"])
    later = list(second.play(4))
    assert [made.round for made in later] == [2, 3]
    for made, like in zip(later, begun[2:], strict=True):
        assert made.payoffs == like.payoffs and made.metrics == like.metrics
        assert made.saw == like.saw
        for name, tensor in {**like.costs, **like.exhibit}.items():
            assert torch.equal({**made.costs, **made.exhibit}[name], tensor)
    for name in ("attacker", "defender"):
        ends = whole.state_dict(), second.state_dict()
        for key, tensor in ends[0]["standing"][name].items():
            assert torch.equal(ends[1]["standing"][name][key], tensor)
    assert json.dumps(ends[0]["made"]) == json.dumps(ends[1]["made"])
