"""The arena and the rules of evasion: laws, determinism, fairness, and what is refused."""

import math
from typing import ClassVar

import pytest
import torch
from small import LINEAR, ORDERS, Constant, attacker, defender, evasion, last, retrain
from torch import nn

from arena import Arena, IllegalMove, Knowledge, Player, Strategy, Unplayable, View, WhiteBox
from arena.actions.decisions import ClassOrRefusal, Confidence
from arena.actions.lp import L0, L1, L2, Linf
from arena.actions.pool import Pool
from arena.attacks.fgsm import FGSM
from arena.attacks.honest import Honest
from arena.attacks.noise import Noise
from arena.attacks.pgd import PGD
from arena.attacks.replay import Replay
from arena.attacks.square import Square
from arena.costs import ErrorRate, Negation, QueryPrice, Refusal, SourceTarget, Targeted
from arena.data.digits import Digits
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.games.evasion import Evasion
from arena.knowledge import INVALID
from arena.learners.networks import CNN, MLP

TRAINED = ERM(MLP((32,)), epochs=10)


class Play(Strategy):
    """Plays what a function of the turn says."""

    def __init__(self, move):
        object.__setattr__(self, "move", move)

    def __post_init__(self):
        pass

    def respond(self, turn):
        return self.move(turn)


# Laws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", [Linf(0.0), L2(0.0), L1(0.0), L0(0)])
def test_without_room_to_move_the_error_is_the_clean_error(actions):
    record = last(evasion(attacker(actions=actions), defender(TRAINED)))
    assert record.metrics["attacked_error"] == record.metrics["clean_error"]


def test_unlimited_room_breaks_every_model():
    record = last(evasion(attacker(PGD(20, 0.2), actions=Linf(1.0)), defender(TRAINED)))
    assert record.metrics["attacked_error"] == 1.0


def test_a_larger_ball_never_helps_the_defender():
    errors = [
        last(evasion(attacker(PGD(20, 0.1), actions=Linf(eps)), defender(TRAINED))).metrics[
            "attacked_error"
        ]
        for eps in (0.02, 0.05, 0.1, 0.2)
    ]
    assert errors == sorted(errors) and errors[0] < errors[-1]


def test_stronger_attacks_find_more():
    def error(strategy, knowledge=None):
        game = evasion(attacker(strategy, knowledge, Linf(0.1)), defender(TRAINED), examples=400)
        return last(game).metrics["attacked_error"]

    honest, noise = error(Honest()), error(Noise())
    fgsm, pgd = error(FGSM()), error(PGD(20, 0.15))
    square = error(Square(steps=200), Knowledge.black_box("scores", 201))
    assert honest <= noise + 0.05 < fgsm <= pgd
    # Less knowledge is no stronger; but 20 steps are not all that gradients can do: 4 of 200.
    assert noise + 0.1 < square <= pgd + 0.02


def test_payoffs_are_minus_mean_costs_with_their_standard_errors():
    record = last(evasion())
    for name, cost in record.costs.items():
        assert record.payoffs[name] == pytest.approx(-float(cost.mean()))
        expected = float(cost.std()) / math.sqrt(len(cost))
        assert record.standard_errors[name] == pytest.approx(expected)


def test_zero_sum_is_detected_not_assumed():
    assert last(evasion()).zero_sum
    assert not last(evasion(attacker(cost=Targeted(0)))).zero_sum
    priced = attacker(cost=QueryPrice(Negation(ErrorRate()), 0.01))
    record = last(evasion(priced))
    assert not record.zero_sum
    difference = record.payoffs["attacker"] + record.payoffs["defender"]
    assert difference == pytest.approx(-0.01 * record.metrics["queries"])


def test_a_targeted_attacker_gets_its_class():
    def share(cost):
        player = attacker(PGD(20, 0.2), cost=cost, actions=Linf(0.3))
        return last(evasion(player, defender(TRAINED), examples=200)).payoffs

    targeted = share(Targeted(3))["attacker"] + 1  # the share of inputs answered 3 by mistake
    # All of classes other than 3 could be; a true 3 can never be.
    assert 0.5 < targeted < 1.0
    assert share(SourceTarget(3, 5))["attacker"] < share(Targeted(5))["attacker"]


def test_replay_sends_one_mistake_everywhere():
    players = attacker(Replay(), Knowledge.black_box("labels", 1), Pool()), defender(TRAINED)
    arena = evasion(*players, examples=200)
    record = last(arena)
    assert 0 < record.metrics["clean_error"] < 0.5
    assert record.metrics["attacked_error"] == 1.0
    assert record.metrics["queries"] == 1.0
    played = arena._past.standing["attacker"]
    assert torch.equal(played, played[:1].expand_as(played))


def test_replay_without_a_mistake_to_send_is_honest():
    perfect = Fixed(lambda x: _truth(x))
    arena = evasion(attacker(Replay(), Knowledge.black_box("labels"), Pool()), defender(perfect))
    assert last(arena).metrics["attacked_error"] == 0.0
    assert torch.equal(arena._past.standing["attacker"], arena.board.dealt.x)


def _truth(x):
    digits, _ = Digits().load()
    return digits.y[torch.cdist(x.flatten(1), digits.x.flatten(1)).argmin(1)]


# Order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("attacker_first", [(-1, 0), (0, 1), (1, 2)]),
        ("simultaneous", [(-1, -1), (0, 0), (1, 1)]),
        ("defender_first", [(0, -1), (1, 0), (2, 1)]),
    ],
)
def test_each_sees_the_move_that_stands(order, expected):
    arena = evasion(defender_=defender(retrain()), order=order)
    saw = [record.saw for record in arena.play(3)]
    assert [(s["attacker"]["defender"], s["defender"]["attacker"]) for s in saw] == expected


def test_an_opening_is_trained_only_if_somebody_looks_at_it():
    trained = []

    class Counting(ERM):
        def respond(self, turn):
            trained.append(turn.round)
            return super().respond(turn)

    player = defender(Counting(LINEAR, epochs=1))
    list(evasion(defender_=player, order="defender_first").play(2))
    assert trained == [0, 1]
    trained.clear()
    list(evasion(defender_=player, order="attacker_first").play(2))
    assert trained == [-1, 0, 1]
    trained.clear()
    list(evasion(attacker(Noise()), player, order="attacker_first").play(2))
    assert trained == [0, 1]


def test_the_keynotes_claim_on_a_linear_model():
    """[F15] Who answers the attacks wins where who is answered loses; far apart, so no noise."""
    players = attacker(PGD(20, 0.15)), defender(retrain(epochs=20))
    error = {
        order: sum(
            r.metrics["attacked_error"]
            for r in evasion(*players, order=order, examples=400).play(3)
        )
        for order in ("attacker_first", "defender_first")
    }
    assert error["attacker_first"] < error["defender_first"] - 0.3


# Determinism -----------------------------------------------------------------------------------


def costs(arena, rounds=2):
    return [record.costs for record in arena.play(rounds)]


def same(one, other):
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)


@pytest.mark.parametrize("order", ORDERS)
def test_a_match_is_a_function_of_its_seed(order):
    def played(seed):
        player = attacker(actions=Linf(0.05))
        return costs(evasion(player, defender(retrain()), order=order, seed=seed))

    assert same(played(3), played(3))
    assert not same(played(3), played(4))


@pytest.mark.parametrize(
    ("strategy", "knowledge"),
    [
        (PGD(10, 0.2, restarts=2), None),
        (Square(steps=30), Knowledge.black_box("scores", 31)),
        (Noise(), None),
    ],
)
@pytest.mark.parametrize(("rows", "examples"), [(1, 24), (7, 80), (80, 80)])
def test_the_batch_size_changes_nothing(strategy, knowledge, rows, examples):
    player = attacker(strategy, knowledge)
    whole = evasion(player, defender(TRAINED), examples=examples)
    parts = evasion(player, defender(TRAINED), rows=rows, batch_size=rows, examples=examples)
    assert same(costs(whole), costs(parts))


def test_a_turns_generator_is_its_own_and_fresh_each_time():
    drawn = []

    def move(turn):
        drawn.append([torch.rand(3, generator=turn.generator).tolist() for _ in range(2)])
        return turn.data.x

    for seed in (0, 0, 1):
        list(evasion(attacker(Play(move)), seed=seed).play(2))
    assert all(one == again for one, again in drawn)
    first, second, other = drawn[:2], drawn[2:4], drawn[4:]
    assert first == second and first != other and first[0] != first[1]


def test_the_global_generator_does_not_matter():
    torch_state = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        one = costs(evasion(defender_=defender(retrain())))
        torch.manual_seed(2)
        other = costs(evasion(defender_=defender(retrain())))
    finally:
        torch.set_rng_state(torch_state)
    assert same(one, other)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("broken_off", [1, 2, 3])
def test_going_on_from_a_state_is_bit_identical(order, broken_off):
    def fresh():
        return evasion(defender_=defender(retrain()), order=order)

    whole = fresh()
    expected = costs(whole, 4)
    first = fresh()
    begun = costs(first, broken_off)
    second = fresh()
    second.load_state_dict(first.state_dict())
    assert same(expected, begun + costs(second, 4))
    assert torch.equal(whole._past.standing["attacker"], second._past.standing["attacker"])
    one, other = (arena._past.standing["defender"].state() for arena in (whole, second))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_cuda_agrees_with_the_cpu():
    found = {
        device: last(
            evasion(attacker(PGD(20, 0.15)), defender(TRAINED), examples=400, device=device)
        ).metrics["attacked_error"]
        for device in ("cpu", "cuda")
    }
    assert found["cuda"] == pytest.approx(found["cpu"], abs=0.05)


# What is refused -------------------------------------------------------------------------------


def test_an_illegal_move_names_the_example_and_by_how_much():
    def move(turn):
        x = turn.data.x.clone()
        x[5, 0, 3, 3] = (x[5, 0, 3, 3] + 0.3) % 1.0
        return x

    why = r"attacker's input 5 is outside Linf.*displacement 0\.[37]"
    with pytest.raises(IllegalMove, match=why):
        last(evasion(attacker(Play(move))))


@pytest.mark.parametrize(
    ("move", "why"),
    [
        (lambda turn: turn.data.x + 2.0, "outside the box"),
        (lambda turn: turn.data.x * math.nan, "not finite"),
        (lambda turn: turn.data.x[:3], r"\[3, 1, 8, 8\]; play"),
        (lambda turn: turn.data.x.double(), "float64"),
        (lambda turn: None, "a NoneType"),
    ],
)
def test_moves_that_are_no_legal_inputs(move, why):
    with pytest.raises(IllegalMove, match=why):
        last(evasion(attacker(Play(move))))


def in_place(turn):
    turn.data.x.clamp_(0.2, 0.8)
    return turn.data.x


def in_the_model(turn):
    with torch.no_grad():
        next(turn.see("defender", WhiteBox).module.parameters()).zero_()
    return turn.data.x


def in_the_training_data(turn):
    turn.see("defender", View).training_data.y.zero_()
    return turn.data.x


@pytest.mark.parametrize("move", [in_place, in_the_model, in_the_training_data])
def test_what_a_strategy_is_shown_it_may_not_change(move):
    class Look(Play):
        needs: ClassVar = {"defender": WhiteBox}

    with pytest.raises(IllegalMove, match=r"attacker's Look changed .* in place"):
        last(evasion(attacker(Look(move))))


def test_a_defender_must_play_a_classifier():
    with pytest.raises(IllegalMove, match="play a Classifier of 10 classes"):
        last(evasion(attacker(Noise()), defender(Play(lambda turn: nn.Flatten()))))


class BrokenOn(nn.Module):
    """NaN logits where the first pixel exceeds a threshold; class 0 elsewhere."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        logits = torch.zeros(len(x), 10)
        logits[:, 0] = 1.0
        broken = x.flatten(1)[:, 0] > 0.05
        return torch.where(broken[:, None], self.value, logits)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_input_without_finite_logits_is_never_counted_as_fooled(value):
    def move(turn):  # breaks the model on every other example, and changes nothing else
        x = turn.data.x.clone()
        x[::2, 0, 0, 0] += 0.1
        return x

    record = last(evasion(attacker(Play(move)), defender(Fixed(BrokenOn(value)))))
    honest = last(evasion(attacker(Honest()), defender(Fixed(BrokenOn(value)))))
    moved = record.exhibit["attacked_answer"] == INVALID
    assert 0 < moved.sum() < len(moved)
    assert 5 < record.metrics["no_answer"] * len(record.costs["defender"]) < 35
    # Where there is no answer it costs as much as an error; elsewhere nothing has changed.
    silent = record.costs["defender"] != honest.costs["defender"]
    assert (record.costs["defender"][silent] == 1).all()
    assert silent.sum() <= record.metrics["no_answer"] * len(silent)
    assert "NaN or infinite logits" in record.notes[0]


def test_a_model_that_is_broken_on_clean_inputs_does_not_play():
    with pytest.raises(ValueError, match="NaN or infinite on clean input"):
        last(evasion(attacker(Honest()), defender(Fixed(Constant([math.nan] * 10)))))


def test_refusals_need_the_action_space_for_them():
    logits = [0.0] * 10 + [5.0]  # an eleventh column: always refuses
    refusing = Fixed(Constant(logits))
    with pytest.raises(IllegalMove, match="it refuses, but its actions are classes only"):
        last(evasion(attacker(Honest()), defender(refusing, actions=Confidence())))
    allowed = defender(refusing, actions=ClassOrRefusal(), cost=Refusal(0.25, 0.1))
    assert last(evasion(attacker(Honest()), allowed)).payoffs["defender"] == pytest.approx(-0.25)
    moved = attacker(Play(lambda turn: (turn.data.x - 0.1).clamp(0.05, 1).clamp(max=0.95)))
    changed = last(evasion(moved, allowed, examples=40))
    assert changed.payoffs["defender"] == pytest.approx(-0.1)


def test_a_refusing_model_can_be_attacked_through_its_refusal_column():
    class Refusing(nn.Module):
        def __init__(self):
            super().__init__()
            confident = ERM(MLP((32,)), epochs=60)
            self.inner = confident.train(Digits().load()[0][:800], seed=0).module

        def forward(self, x):
            logits = self.inner(x)
            refuse = logits.logsumexp(1, keepdim=True) + math.log(0.9)
            return torch.cat([logits, refuse], 1)

    refusing = defender(Fixed(Refusing()), actions=ClassOrRefusal(), cost=Refusal(0.5, 0.0))
    honest = last(evasion(attacker(Honest()), refusing))

    def attacked(cost):
        player = attacker(PGD(20, 0.15), cost=cost, actions=Linf(0.3))
        return last(evasion(player, refusing))

    assert 0 < honest.metrics["refused"] < 0.5
    # Where a refusal is as good as an error some inputs end there; where only errors pay, none.
    assert attacked(Negation(ErrorRate())).metrics["refused"] > 0.1
    errors_only = attacked(Negation(Refusal(0.5, 0.0)))
    assert errors_only.payoffs["attacker"] > 0.9
    assert errors_only.metrics["refused"] < 0.1


def test_setups_that_cannot_work_are_refused_at_once():
    with pytest.raises(Unplayable, match="Replay cannot serve actions=Linf; use actions=pool"):
        evasion(attacker(Replay(), Knowledge.black_box("labels")))
    with pytest.raises(Unplayable, match="PGD cannot serve actions=Pool; use actions=linf, l2, l1"):
        evasion(attacker(actions=Pool()))
    with pytest.raises(Unplayable, match="restarts without random_start"):
        evasion(attacker(PGD(restarts=2, random_start=False)))
    players = {"attacker": attacker(), "referee": defender()}
    with pytest.raises(Unplayable, match="is played by"):
        Arena(Evasion(Digits()), players, ORDERS["simultaneous"])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"examples": 5000}, "examples=5000, but only 611 test examples"),
        ({"attacker_share": 1.0}, "nothing to train on"),
        ({"attacker": attacker(actions=Linf(0.1, box=(-1.0, 1.0)))}, "box"),
        ({"attacker": attacker(cost=Targeted(10))}, "target=10 is no class"),
        ({"defender": defender(actions=Confidence(classes=3))}, "classes=3"),
        ({"defender": defender(TRAINED, actions=Confidence())}, None),
        ({"defender": defender(ERM(CNN((8, 8, 8, 8, 8)), epochs=1))}, "5 halvings"),
    ],
)
def test_declarations_that_do_not_fit_the_data(options, why):
    players = {
        "attacker_": options.pop("attacker", None),
        "defender_": options.pop("defender", None),
    }
    if why is None:
        last(evasion(**players))
        return
    with pytest.raises(ValueError, match=why):
        last(evasion(**players, **options))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_asked_for_and_absent():
    with pytest.raises(ValueError, match="device=cuda, but torch sees no CUDA"):
        last(evasion(device="cuda"))


def test_a_users_own_models_play_as_they_are():
    from sklearn.linear_model import LogisticRegression

    mine = Evasion(Digits(), examples=80).training(seed=0)
    estimator = LogisticRegression(max_iter=500).fit(mine.x.flatten(1), mine.y)
    scores = Fixed(estimator)
    record = last(
        evasion(attacker(Square(steps=100), Knowledge.black_box("scores", 101)), defender(scores))
    )
    assert 0 < record.metrics["clean_error"] < 0.1 < 0.3 < record.metrics["attacked_error"]
    function = Fixed(lambda x: estimator.predict(x.flatten(1)))
    assert last(evasion(attacker(Noise()), defender(function))).metrics["clean_error"] < 0.1
    module = LINEAR.build((1, 8, 8), 10, seed=0)
    module.requires_grad_(True).train()
    last(evasion(defender_=defender(Fixed(module))))
    assert module.training and module[1].weight.requires_grad, "the user's module stays as it was"


def test_player_is_typed():
    with pytest.raises(TypeError):
        Player(Linf(0.1), ErrorRate())
