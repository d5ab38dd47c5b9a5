"""A run's folder: atomic, held by one process, of one configuration, and complete."""

import errno
import json
import multiprocessing
import os

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from arena import Arena, Knowledge, MoveOrder, Player
from arena.actions.decisions import Confidence
from arena.actions.lp import Linf
from arena.arena import Record
from arena.attacks.pgd import PGD
from arena.costs import ErrorRate, Negation
from arena.data.digits import Digits
from arena.defenses.erm import ERM
from arena.defenses.retrain import Retrain
from arena.events import Events
from arena.files import atomically, held
from arena.games.evasion import Evasion
from arena.learners.networks import MLP
from arena.log import CHECKPOINT, RunLog, claim, read_checkpoint, read_rounds

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
    return {"rounds_played": number + 1, "standing": {"attacker": {"x": torch.ones(2)}}}


def play(folder, rounds, config=CONFIG):
    with RunLog(folder, config) as log:
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
    assert contents(tmp_path).items() >= before.items()
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
    line = read_rounds(tmp_path)[2]
    assert (line["round"], line["payoffs"]) == (2, {"attacker": 0.5})
    assert line["standard_errors"] == {"attacker": None}  # JSON has no NaN


def test_the_checkpoint_is_data_and_no_code(tmp_path):
    play(tmp_path, 1)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert saved["state"]["rounds_played"] == 1


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "other"])
def test_a_damaged_checkpoint_is_named_and_nothing_is_changed(tmp_path, damage):
    play(tmp_path, 1)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    if damage == "other":
        torch.save({"identity": "x"}, path)
    else:
        path.write_bytes(
            {"cut": whole[: len(whole) // 2], "noise": b"x" * 99, "empty": b""}[damage]
        )
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"{CHECKPOINT} is damaged.*remove the folder"):
        play(tmp_path, 2)
    assert contents(tmp_path) == before


def test_readable_files_are_made_from_the_checkpoint_again(tmp_path):
    play(tmp_path, 3)
    whole = contents(tmp_path)
    (tmp_path / "rounds.jsonl").write_bytes((tmp_path / "rounds.jsonl").read_bytes()[:-20])
    (tmp_path / "outcomes.safetensors").unlink()
    play(tmp_path, 3)
    assert contents(tmp_path) == whole


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(b'{"round": 0}\n{"round": 1}\n{"round": 2, "order": "caf\xc3')
    assert [line["round"] for line in read_rounds(tmp_path)] == [0, 1]
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
