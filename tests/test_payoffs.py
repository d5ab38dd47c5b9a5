"""study=payoffs: whose moves meet, what is refused, what fails alone, and what is played again."""

import csv
import dataclasses
import json
import os
import signal

import numpy as np
import pytest
from damage import each_flipped
from safetensors.numpy import load_file
from small import LINEAR, attacker, defender

from arena import Knowledge, MoveOrder, Player
from arena.actions.decisions import ClassOrRefusal
from arena.actions.lp import L2
from arena.arena import Unplayable
from arena.attacks.fgsm import FGSM
from arena.attacks.honest import Honest
from arena.attacks.noise import Noise
from arena.attacks.square import Square
from arena.attacks.transfer import Transfer
from arena.costs import Refusal
from arena.data.digits import Digits
from arena.defenses.erm import ERM
from arena.empirical.game import EmpiricalGame
from arena.empirical.saved import load, save
from arena.executors.executor import Serial
from arena.executors.processes import Processes
from arena.games.evasion import Evasion
from arena.games.matrix import MatrixCost, MatrixGame, Mix, Mixtures
from arena.learners.networks import MLP
from arena.store import Store
from arena.studies.moves import blind, columns
from arena.studies.payoffs import Payoffs, mean_cost
from arena.studies.roster import Attack, Defense
from arena.studies.study import Setup, play

TASK = Knowledge(task=True)
PLAIN, LONGER = ERM(LINEAR, epochs=3), ERM(LINEAR, epochs=6)
OWN = Transfer(ERM(LINEAR, epochs=2), attack=FGSM())
SCORES = Knowledge.black_box("scores", 20)


def setup(folder, name="run", **changed):
    players = {"attacker": attacker(), "defender": defender(knowledge=TASK)}
    order, game = MoveOrder.attacker_first(), Evasion(Digits(), examples=80)
    (folder / name).mkdir(parents=True, exist_ok=True)
    made = Setup(game, players, order, 0, 1024, folder / name, Store(folder / "models"), {})
    return dataclasses.replace(made, **changed)


def payoffs(**changed):
    fields = {
        "title": "Payoffs",
        "defenses": {
            "plain": Defense(PLAIN),
            "longer": Defense(LONGER, attacks={"FGSM": None}),
            "too fast": Defense(ERM(MLP((8,)), epochs=3, lr=1e20)),
        },
        "attacks": {
            "clean": Attack(Honest()),
            "transfer": Attack(OWN, TASK),
            "FGSM": Attack(FGSM()),
            "Square": Attack(Square(steps=19), SCORES),
        },
        "executor": Serial(),
    }
    return Payoffs(**(fields | changed))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("payoffs")
    payoffs().run(setup(folder))
    return folder


def test_who_sees_a_model_or_its_recipe_is_crafted_against_it():
    gray = Attack(OWN, Knowledge.gray_box())
    assert blind(Attack(Noise())) and blind(Attack(OWN, TASK))
    assert not any(map(blind, (gray, Attack(FGSM()), Attack(Square(), SCORES))))
    own = {"FGSM": None, "Square": Attack(Square(steps=5), SCORES), "noise": Attack(Noise())}
    defenses = {"A": Defense(PLAIN), "B": Defense(LONGER, attacks=own)}
    attacks = {"clean": Attack(Honest()), "FGSM": Attack(FGSM()), "gray": gray}
    found = {column.name: column.against for column in columns(defenses, attacks)}
    assert list(found.items()) == [
        ("clean", None),
        ("FGSM vs A", "A"),
        ("gray vs A", "A"),
        ("gray vs B", "B"),
        ("Square vs B", "B"),
        ("noise vs B", "B"),
    ]


def test_cells_are_what_the_matches_cost(ran):
    game = load(ran / "run" / "game-seed-0.safetensors")
    assert game.models == ("plain", "longer", "too fast")
    assert game.against[:3] == (None, None, "plain")
    alone = setup(ran).variant(MoveOrder.defender_first(), 0, ran / "alone")
    players = alone.players | {
        "attacker": attacker(FGSM()),
        "defender": defender(PLAIN, knowledge=TASK),
    }
    found = play(dataclasses.replace(alone, players=players), 1, lambda line: None)
    place = game.attacks.index("FGSM vs plain")
    np.testing.assert_array_equal(game.costs["defender"][0, place], found.outcomes["defender"][0])


def test_what_fails_is_named_and_leaves_the_others(ran):
    game = load(ran / "run" / "game-seed-0.safetensors")
    assert "FGSM vs longer" not in game.attacks and "FGSM vs too fast" in game.attacks
    cells = {(model, attack) for model in game.models for attack in game.attacks}
    failed = {cell for cell in cells if any(name.endswith("too fast") for name in cell)}
    assert set(game.missing) == failed
    assert all("diverged" in why for why in game.missing.values())
    lines = [*csv.DictReader((ran / "run" / "payoffs.csv").read_text().splitlines())]
    assert len(lines) == len(game.models) * len(game.attacks)
    assert {(line["model"], line["attack"]) for line in lines if line["missing"]} == failed
    known = next(line for line in lines if line["attack"] == "FGSM vs plain")
    assert known["against"] == "plain" and known["model"] == "plain"
    assert float(known["defender_cost"]) == -float(known["attacker_cost"]) > 0.5


def test_tables_and_figures_are_there(ran):
    tables = json.loads((ran / "run" / "study.json").read_text())["tables"]
    assert [table["title"] for table in tables] == [
        "Attacks that see no defender",
        "FGSM, crafted against",
        "Square, crafted against",
        "Values by protocol",
        "Prices",
        "Where best responses end",
        "Where players make mistakes",
    ]
    assert "left out because cells are missing: too fast" in tables[3]["note"]
    assert tables[1]["columns"] == ["played on", "plain", "too fast"]
    assert [row[0] for row in tables[1]["rows"]] == ["plain", "longer", "too fast"]
    assert tables[1]["rows"][0][2] == "missing" and "±" in tables[1]["rows"][0][1]
    for name in ("payoffs.svg", "payoffs.png", "values.svg", "values.csv", "report.html"):
        assert (ran / "run" / name).is_file()


def test_what_was_played_is_not_played_again_in_this_folder_or_another(ran, capsys):
    good = {name: d for name, d in payoffs().defenses.items() if name != "too fast"}
    payoffs(defenses=good).run(setup(ran))
    assert "Cells:  10, 0 of them played now" in capsys.readouterr().out
    more = good | {"other": Defense(ERM(LINEAR, epochs=4))}
    payoffs(defenses=more).run(setup(ran, "other"))
    # A row of 5 cells, and columns of 3: FGSM and Square against the other.
    assert "Cells:  21, 11 of them played now" in capsys.readouterr().out


def test_the_executors_and_seeds_make_no_difference(ran, tmp_path):
    attacks = {"clean": Attack(Honest()), "FGSM": Attack(FGSM())}
    small = {"defenses": {"plain": Defense(PLAIN)}, "attacks": attacks}
    payoffs(**small, seeds=2, executor=Processes(2)).run(setup(tmp_path))
    games = [load(tmp_path / "run" / f"game-seed-{seed}.safetensors") for seed in (0, 1)]
    whole = load(ran / "run" / "game-seed-0.safetensors")
    same = whole.part(models=["plain"], attacks=["clean", "FGSM vs plain"])
    np.testing.assert_array_equal(games[0].costs["defender"], same.costs["defender"])
    both = mean_cost(games, ("plain", "clean"), "defender")
    means = [game.costs["defender"][0, 0].mean() for game in games]
    assert means[0] != means[1]
    assert both.mean == pytest.approx(np.mean(means))
    assert both.half == pytest.approx(12.7062 * abs(means[0] - means[1]) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"attacks": {}}, "at least one defense and one attack"),
        ({"attacks": {"far": Attack(FGSM(), actions=L2(1.0))}}, "far has actions of its own, L2"),
        (
            {"defenses": {"A": Defense(PLAIN, attacks={"far": Attack(FGSM(), actions=L2(1.0))})}},
            "attack far of A has actions of its own, L2",
        ),
        ({"defenses": {"A": Defense(PLAIN, cost=Refusal())}}, "defense A has cost of its own"),
        (
            {"defenses": {"A": Defense(PLAIN, actions=ClassOrRefusal())}},
            "defense A has actions of its own.*one threat model",
        ),
        (
            {"defenses": {"L 2": Defense(PLAIN), "L_2": Defense(LONGER)}},
            "defenses 'L 2' and 'L_2' cannot be told apart",
        ),
        ({"defenses": {"nobody": Defense(PLAIN)}}, "'nobody' and 'nobody' cannot be told apart"),
        (
            {
                "defenses": {"A": Defense(PLAIN)},
                "attacks": {"FGSM": Attack(FGSM()), "FGSM vs A": Attack(Noise())},
            },
            "'FGSM vs A' and 'FGSM vs A' cannot be told apart",
        ),
        ({"cells": (1.0, 0.0)}, r"cells = \[1.0, 0.0\]: give the least"),
    ],
)
def test_what_is_no_game_is_refused(changed, match):
    with pytest.raises(ValueError, match=match):
        payoffs(**changed)


def test_declarations_that_contradict_are_refused_before_anything_trains(tmp_path):
    blindfold = {"FGSM": Attack(FGSM(), Knowledge.black_box("labels", 10))}
    with pytest.raises(Unplayable, match="plain against FGSM: attacker's FGSM needs a WhiteBox"):
        payoffs(attacks=blindfold).run(setup(tmp_path))
    with pytest.raises(ValueError, match="only 611 test examples are there"):
        payoffs().run(setup(tmp_path, game=Evasion(Digits(), examples=4000)))
    assert not (tmp_path / "models").exists()


def test_a_roster_of_another_game_is_refused_before_anything_plays(shell, tmp_path):
    said = shell("experiment=matching_pennies", "study=payoffs")
    assert said.code == 2 and "cannot serve actions=Mixtures" in said.err
    assert not list(tmp_path.rglob("rounds.jsonl"))


def test_a_matrix_game_has_a_cross_play(tmp_path, capsys):
    pennies = [[1.0, -1.0], [-1.0, 1.0]]
    players = {
        name: Player(
            Mixtures(2), MatrixCost.of_payoffs(sign * np.array(pennies)), TASK, Mix((1, 0))
        )
        for name, sign in (("attacker", -1), ("defender", 1))
    }
    payoffs(
        defenses={"heads": Defense(Mix((1, 0))), "tails": Defense(Mix((0, 1)))},
        attacks={"heads": Attack(Mix((1, 0)), TASK), "tails": Attack(Mix((0, 1)), TASK)},
    ).run(setup(tmp_path, game=MatrixGame(), players=players))
    game = load(tmp_path / "run" / "game-seed-0.safetensors")
    np.testing.assert_array_equal(game.payoffs("defender")[..., 0], pennies)


@dataclasses.dataclass(frozen=True)
class Deadly(ERM):
    """Its training is killed the first time, which leaves a file."""

    mark: str = ""

    def loss(self, module, step):
        if not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(module, step)


def test_a_study_that_was_killed_goes_on(tmp_path):
    deadly = Deadly(LINEAR, epochs=1, mark=str(tmp_path / "died"))
    study = payoffs(
        defenses={"plain": Defense(PLAIN), "deadly": Defense(deadly)},
        attacks={"FGSM": Attack(FGSM())},
        executor=Processes(1),
    )
    with pytest.raises(ChildProcessError, match="start the same command again"):
        study.run(setup(tmp_path))
    assert (tmp_path / "died").exists()
    study.run(setup(tmp_path))
    assert not load(tmp_path / "run" / "game-seed-0.safetensors").missing


GAME = EmpiricalGame(
    ("A", "B"),
    ("x", "y"),
    ("B", None),
    {
        "attacker": np.array([[[-1.0, 0], [0, 0]], [[-1, -1], [np.nan, np.nan]]]),
        "defender": np.array([[[1.0, 0], [0, 0]], [[1, 1], [np.nan, np.nan]]]),
    },
    np.array([[1.0, 0], [1, 1]]),
    {("B", "y"): "it broke"},
    {"B": np.array([3, -1])},
)


def test_a_game_is_read_as_it_was_saved(tmp_path):
    path = tmp_path / "game.safetensors"
    save(GAME, path)
    found = load(path)
    for name in ("models", "attacks", "against", "missing"):
        assert getattr(found, name) == getattr(GAME, name)
    for player, cost in GAME.costs.items():
        np.testing.assert_array_equal(found.costs[player], cost)
    np.testing.assert_array_equal(found.most, GAME.most)
    assert list(found.answers) == ["B"] and found.answers["B"].tolist() == [3, -1]
    for _ in each_flipped(path, samples=300):
        with pytest.raises(
            ValueError, match=r"game\.safetensors is damaged .*; run the study again"
        ):
            load(path)


def test_the_order_in_which_models_came_is_not_kept(tmp_path):
    """A pool's workers finish in any order; what a study leaves does not tell in which."""
    labels = {"A": np.array([0, 1]), "B": np.array([3, -1])}
    for name, answers in (("one", labels), ("other", dict(reversed(labels.items())))):
        save(dataclasses.replace(GAME, answers=answers), tmp_path / name)
    one, other = (load_file(tmp_path / name) for name in ("one", "other"))
    np.testing.assert_array_equal(one["answers"], other["answers"])
    for name in ("one", "other"):
        np.testing.assert_array_equal(load(tmp_path / name).answers["B"], labels["B"])
