"""Defenses in a row, attacks in a row: what stands in the table, and what does not spoil it."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
from small import LINEAR, attacker, defender

from arena import Knowledge, MoveOrder
from arena.actions.decisions import Confidence
from arena.arena import Unplayable
from arena.attacks.fgsm import FGSM
from arena.attacks.honest import Honest
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.data.digits import Digits
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.games.evasion import Evasion
from arena.learners.networks import MLP
from arena.store import Store
from arena.studies.gauntlet import Gauntlet, cost, difference
from arena.studies.roster import Attack, Defense
from arena.studies.study import Played, Setup, play

TASK = Knowledge(task=True)


def setup(folder, **options):
    players = {"attacker": attacker(), "defender": defender(knowledge=TASK)}
    order = MoveOrder.attacker_first()
    store = Store(folder / "models")
    game = Evasion(Digits(), examples=80)
    return Setup(
        game, players, order, 0, 1024, folder / "run", store, {"game": "digits"}, **options
    )


def gauntlet(**changed):
    fields = {
        "title": "Three defenses",
        "defenses": {
            "none": Defense(ERM(LINEAR, epochs=3)),
            "single step": Defense(
                AdversarialTraining(LINEAR, epochs=3, inner=FGSM()),
                published="falls to PGD",
                attacks={
                    "authors": Attack(FGSM()),
                    "adaptive": Attack(Square(steps=20), Knowledge.black_box("scores", 30)),
                },
            ),
            "too fast": Defense(ERM(MLP((8,)), epochs=3, lr=1e20)),
        },
        "attacks": {"clean": Attack(Honest()), "PGD": Attack(PGD(steps=5, step=0.3))},
        "contrast": ("adaptive", "authors"),
    }
    return Gauntlet(**(fields | changed))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gauntlet")
    gauntlet().run(setup(folder))
    return folder


def table(folder):
    """The columns, and the rows by defense."""
    saved = json.loads((folder / "run" / "study.json").read_text())["tables"][0]
    return saved["columns"], {row[0]: row for row in saved["rows"]}


def test_a_cell_is_the_match_that_it_says(ran):
    """The same match, played alone, costs the same on every example."""
    alone = setup(ran).variant(MoveOrder.defender_first(), 0, ran / "alone")
    found = play(alone, 1, lambda line: None).outcomes["defender"]
    columns, rows = table(ran)
    assert columns == [
        *("defense", "clean", "PGD", "authors", "adaptive"),
        *("adaptive less authors", "worst", "certified"),
    ]
    assert rows["none"][2].startswith(f"{found.mean():.3f}")
    assert rows["none"][6] == rows["none"][2] and rows["none"][3] == rows["none"][5] == ""


def test_what_fails_leaves_the_others(ran):
    _, rows = table(ran)
    assert rows["too fast"][1:3] == ["failed", "failed"]
    assert "failed" not in rows["none"] + rows["single step"]


def test_what_was_played_is_not_played_again(ran, capsys):
    good = {name: d for name, d in gauntlet().defenses.items() if name != "too fast"}
    gauntlet(defenses=good).run(setup(ran))
    assert "already held all 6 matches" in capsys.readouterr().out


def test_a_defense_is_trained_once_for_all_its_attacks(ran):
    models = sorted((ran / "models").glob("*.safetensors"))
    assert len(models) == 2


def test_the_legend_names_what_they_meet(ran):
    page = json.loads((ran / "run" / "study.json").read_text())
    legend = page["tables"][1]
    assert legend["rows"][1] == ["single step", "FGSM", "Square", "falls to PGD"]
    assert legend["note"] == "All meet clean: Honest; PGD: PGD."
    assert (ran / "run" / "errors.svg").is_file() and (ran / "run" / "report.html").is_file()


def test_declarations_that_contradict_are_refused_before_anything_trains(tmp_path):
    labels = Knowledge.black_box("labels", 10)
    with pytest.raises(Unplayable, match="none against PGD: attacker's PGD needs a WhiteBox"):
        gauntlet(attacks={"PGD": Attack(PGD(), labels)}).run(setup(tmp_path))
    assert not (tmp_path / "models").exists() and not (tmp_path / "run").exists()


def test_data_that_do_not_fit_are_refused_before_anything_trains(tmp_path):
    match = setup(tmp_path)
    seven = defender(knowledge=TASK, actions=Confidence(7))
    match = dataclasses.replace(match, players={**match.players, "defender": seven})
    with pytest.raises(ValueError, match=r"actions\.classes=7, but the data have 10"):
        gauntlet().run(match)
    assert not (tmp_path / "models").exists()


def played(*costs):
    return [Played([], {"defender": np.array([c], dtype=float)}, 1) for c in costs]


def test_a_difference_is_paired_by_example():
    """0/1 costs that differ on one of four examples: mean 1/4, spread 1/2, half-width z / 4."""
    one, other = played([1, 1, 0, 1]), played([1, 0, 0, 1])
    found = difference(one, other)
    assert found.mean == 0.25
    assert found.half == pytest.approx(1.959964 * 0.5 / 2)
    assert cost(one).mean == 0.75


class Deadly(ERM):
    """Its training is killed, for memory say."""

    def loss(self, module, step):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_dying_process_is_reported(tmp_path):
    with pytest.raises(ChildProcessError, match="start the same command again"):
        gauntlet(defenses={"deadly": Defense(Deadly(LINEAR, epochs=1))}, contrast=None).run(
            setup(tmp_path)
        )
