"""What was asked is what is counted: probes, passes, budgets, coins, presentations, no answers."""

import copy
from dataclasses import dataclass, replace
from math import comb
from typing import ClassVar

import pytest
import torch
from small import Constant, attacker, defender, evasion, last, seen
from torch import nn

from arena import Arena, Knowledge, Labelled, MoveOrder, Strategy, WhiteBox, chance
from arena.actions.decisions import Confidence
from arena.actions.lp import L2, Linf
from arena.attacks.ddn import DDN
from arena.attacks.honest import Honest
from arena.attacks.hopskipjump import HopSkipJump
from arena.attacks.noise import Noise
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.costs import ErrorRate
from arena.data.digits import Digits
from arena.data.given import Given
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.games.evasion import Evasion
from arena.knowledge import LabelView
from arena.learners.networks import MLP
from arena.ledger import BudgetExceeded
from arena.training.classifiers import ModuleClassifier

PLAIN = ERM(MLP(()), epochs=2)


def points(n=20):
    generator = torch.Generator().manual_seed(1)
    return Labelled(torch.rand(n, 4, generator=generator), torch.arange(n) % 3, 3)


def constant(n=3):
    return ModuleClassifier(Constant([1.0, *[0.0] * (n - 1)]), n)


# Rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["labels", "scores", "logits"])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 0), slice(0, 19)], ids=str)
def test_each_input_names_the_example_that_pays(ask, rows):
    data = points()
    view = seen(constant(), data)
    named = torch.arange(len(data))[rows]
    with pytest.raises(ValueError, match=r"20 inputs came with rows of shape \[\d+\]"):
        getattr(view, ask)(data.x, named)
    with pytest.raises(ValueError, match="name, for each input"):
        getattr(view, ask)(data.x, torch.arange(len(data))[:, None])
    assert int(view._ledger.queries.sum()) == 0
    getattr(view, ask)(data.x, torch.zeros(len(data), dtype=torch.int64))
    assert view._ledger.queries.tolist() == [20] + [0] * 19


def test_an_axis_more_buys_no_answers():
    """A model may take inputs with an axis more, and answer each of them many times."""
    data = points()
    model = ModuleClassifier(nn.Linear(4, 3, device="meta").to_empty(device="cpu"), 3)
    rows = torch.arange(len(data))
    for ask in ("labels", "scores", "logits"):
        view = seen(model, data)
        with pytest.raises(ValueError, match="got answers of shape"):
            getattr(view, ask)(data.x[:, None].expand(-1, 50, -1), rows)


# Passes of a module -----------------------------------------------------------------------------


class Nested(nn.Module):
    """Logits by way of a part."""

    def __init__(self):
        super().__init__()
        self.part = Constant([1.0, 0.0, 0.0])

    def forward(self, x):
        return self.part(x)


def test_passes_of_a_module_are_counted_once_and_not_attributed():
    data = points()
    view = seen(ModuleClassifier(Nested(), 3), data)
    rows = torch.arange(len(data))
    view.logits(data.x, rows)
    assert view._ledger.unattributed == 0
    module = view.module
    module(data.x)
    assert view._ledger.unattributed == 20
    module.part(data.x[:7])
    assert view._ledger.unattributed == 27
    copy.deepcopy(module)(data.x[:3])
    assert view._ledger.unattributed == 30
    view.logits(data.x, rows)
    view.on(rows[:5]).labels(data.x[:5], rows[:5])
    view.over(ModuleClassifier(copy.deepcopy(module), 3)).logits(data.x, rows)
    assert view._ledger.unattributed == 30
    assert view._ledger.queries.tolist() == [4] * 5 + [3] * 15


def test_a_pass_that_fails_leaves_the_count_right():
    data = points()
    view = seen(ModuleClassifier(Nested(), 3), data)
    with pytest.raises(RuntimeError):
        view.module(torch.zeros(2, 4).to("meta"))
    before = view._ledger.unattributed
    view.module(data.x)
    assert view._ledger.unattributed == before + 20


@dataclass(frozen=True)
class LooksInside(Strategy):
    """Passes its inputs through the module, once as a whole and once more in a copy."""

    needs: ClassVar = {"defender": WhiteBox}

    def respond(self, turn):
        module = turn.see("defender", WhiteBox).module
        module(turn.data.x)
        copy.deepcopy(module)(turn.data.x)
        return turn.data.x


def test_a_match_reports_passes_that_name_no_example():
    arena = evasion(attacker(LooksInside()), defender(PLAIN), examples=40)
    record = last(arena)
    assert record.notes == (
        "attacker's LooksInside passed 80 inputs through the opponent's module without naming "
        "their examples: not among the queries",
    )
    assert record.metrics["queries"] == 0
    module = arena._past.standing["defender"].module
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


# Budgets ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asks(Strategy):
    """Asks for the labels of its inputs `times` times, or until the budget ends."""

    times: int = 3
    needs: ClassVar = {"defender": LabelView}

    def respond(self, turn):
        view = turn.see("defender", LabelView)
        rows = torch.arange(len(turn.data))
        for _ in range(self.times):
            view.labels(turn.data.x, rows)
        return turn.data.x


TWICE = MoveOrder((("defender",), ("attacker",), ("attacker",)))


def asking(knowledge, order, rounds, times=3):
    players = {"attacker": attacker(Asks(times), knowledge), "defender": defender(PLAIN)}
    arena = Arena(Evasion(Digits(), examples=20), players, order)
    return [record.metrics["queries"] for record in arena.play(rounds)], arena


def test_all_moves_of_a_round_are_counted_and_share_its_budget():
    order = MoveOrder.defender_first()
    assert asking(Knowledge.black_box("labels"), order, 2)[0] == [3, 3]
    assert asking(Knowledge.black_box("labels"), TWICE, 2)[0] == [6, 6]
    assert asking(Knowledge.black_box("labels", 5), TWICE, 2)[0] == [5, 5]


def test_a_budget_may_be_for_the_whole_match():
    knowledge = replace(Knowledge.black_box("labels", 7), queries_per="match")
    order = MoveOrder.defender_first()
    asked, _ = asking(knowledge, order, 4)
    assert asked == [3, 3, 1, 0]
    # A match that is resumed knows what was spent.
    _, first = asking(knowledge, order, 2)
    again = Arena(first.game, first.players, order)
    again.load_state_dict(first.state_dict())
    assert [record.metrics["queries"] for record in again.play(4)] == [1, 0]
    with pytest.raises(BudgetExceeded):
        again._books("attacker", again.data("attacker"), 0).charge(torch.tensor([0]))


@dataclass(frozen=True)
class KeepsOnce(Strategy):
    """Finds something in its first move of a round, and runs out of budget in its second."""

    needs: ClassVar = {"defender": LabelView}

    def respond(self, turn):
        view = turn.see("defender", LabelView)
        rows = torch.arange(len(turn.data))
        view.labels(turn.data.x, rows)
        return (turn.data.x + 0.1).clamp(max=1.0)


def test_what_was_found_before_the_budget_ended_still_stands():
    players = {
        "attacker": attacker(KeepsOnce(), Knowledge.black_box("labels", 1)),
        "defender": defender(PLAIN),
    }
    arena = Arena(Evasion(Digits(), examples=20), players, TWICE)
    (record,) = arena.play(1)
    assert "ran into its budget" in record.notes[0]
    dealt = arena.board.dealt.x
    assert torch.equal(arena._past.standing["attacker"], (dealt + 0.1).clamp(max=1.0))


# Seeds ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guesses(Strategy):
    """Tries to find the match's seed behind its turn's, by the function that derives seeds."""

    found: ClassVar[list] = []

    def respond(self, turn):
        for parts in ((turn.round, 1, "attacker"), (turn.round, "attacker"), ("deal",), ()):
            Guesses.found += [s for s in range(500) if chance.seed_of(s, *parts) == turn.seed]
        return turn.data.x


def test_a_turns_seed_leads_to_no_other():
    Guesses.found.clear()
    arena = evasion(attacker(Guesses()), defender(PLAIN), seed=3)
    last(arena)
    assert not Guesses.found
    shown = {arena.derived_seed(0, stage, name) for stage in (0, 1) for name in arena.players}
    assert len(shown) == 4 and arena.board.coins not in shown
    assert chance.secret(3) == chance.secret(3) != chance.secret(4)


# Coins ------------------------------------------------------------------------------------------


class Coin(nn.Module):
    """Answers the true class of the digits' dealing with probability 1 - p, by the coins."""

    random = True

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x, key=None):
        key = chance.of(x) if key is None else key
        heads = chance.uniform(key) < self.p
        return nn.functional.one_hot(heads.long(), 2).float()


def coin_match(p, draws, presentations=1, seed=0, examples=400):
    """Every true class is 0: the coin errs with probability p."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(2 * examples, 3, generator=generator)
    data = Labelled(x, torch.zeros(2 * examples, dtype=torch.int64), 2)
    game = Evasion(Given(data), examples, test_share=0.5, draws=draws, presentations=presentations)
    players = {
        "attacker": attacker(Honest(), actions=Linf(0.1)),
        "defender": defender(
            Fixed(Coin(p), 2), knowledge=Knowledge(), actions=Confidence(classes=2)
        ),
    }
    return Arena(game, players, MoveOrder.defender_first(), seed)


def test_coins_that_score_are_in_no_view_and_differ_between_matches():
    arena = coin_match(0.5, 1)
    scored = last(arena).costs["defender"]
    board = arena.board
    own = Coin(0.5)(board.dealt.x).argmax(1).double()  # what an attacker can compute for itself
    assert 0.35 < float((own == scored).double().mean()) < 0.65
    assert torch.equal(last(coin_match(0.5, 1)).costs["defender"], scored)
    other = last(coin_match(0.5, 1, seed=1)).costs["defender"]
    assert 0.35 < float((other == scored).double().mean()) < 0.65


@dataclass(frozen=True)
class Foresees(Strategy):
    """Asks for labels, and computes the coins that it would draw from its own seed."""

    agreed: ClassVar[list] = []
    needs: ClassVar = {"defender": LabelView}

    def respond(self, turn):
        rows = torch.arange(len(turn.data))
        found = turn.see("defender", LabelView).labels(turn.data.x, rows)
        for seed in (turn.seed, chance.seed_of(turn.seed, "answers")):
            key = chance.fold(chance.keys_of(seed, rows), 0)
            guess = Coin(0.5)(turn.data.x, key).argmax(1)
            Foresees.agreed.append(float((guess == found).double().mean()))
        return turn.data.x


def test_the_coins_of_probes_do_not_follow_from_a_turns_seed():
    Foresees.agreed.clear()
    arena = coin_match(0.5, 1)
    own = replace(arena.players["attacker"], strategy=Foresees())
    own = replace(own, knowledge=Knowledge.black_box("labels", 1))
    last(Arena(arena.game, {**arena.players, "attacker": own}, arena.order))
    assert len(Foresees.agreed) == 2 and all(0.35 < each < 0.65 for each in Foresees.agreed)


@dataclass(frozen=True)
class ChoosesCoins(Strategy):
    """Moves each input by next to nothing until the model, asked by itself, errs on it."""

    needs: ClassVar = {"defender": WhiteBox}

    def respond(self, turn):
        view = turn.see("defender", WhiteBox)
        x, best = turn.data.x, turn.data.x.clone()
        for step in range(40):
            moved = (x + 5e-5 * step).clamp(max=1.0)
            errs = view.module(moved).argmax(1) != turn.data.y
            best[errs] = moved[errs]
        return best


def test_coins_cannot_be_chosen():
    """Choosing among coins that follow from the input would break nearly every example."""
    arena = coin_match(0.3, 1)
    arena.players["attacker"] = replace(arena.players["attacker"], strategy=ChoosesCoins())
    error = float(last(arena).costs["defender"].mean())
    assert abs(error - 0.3) < 4 * (0.3 * 0.7 / 400) ** 0.5


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_best_of_k_presentations_succeeds_as_often_as_it_should(k):
    p, draws = 0.3, 8
    arena = coin_match(p, draws, k, examples=2000)
    record = last(arena)
    cost = record.costs["defender"]
    expected = 1 - (1 - p) ** k
    assert abs(float(cost.mean()) - expected) < 4 * float(cost.std()) / 2000**0.5
    # Exactly, given the draws: the share of sets of k draws that hold a success.
    answers = [
        arena.board.scoring._answers(arena._past.standing["defender"], arena.board.dealt.x, draw)
        for draw in range(draws)
    ]
    failures = sum((each.labels == 0).long() for each in answers)
    exact = [1 - comb(int(n), k) / comb(draws, k) for n in failures]
    torch.testing.assert_close(cost, torch.tensor(exact, dtype=torch.float64))


def test_more_draws_make_the_interval_tighter_and_do_not_move_the_mean():
    one, many = (last(coin_match(0.3, draws)) for draws in (1, 16))
    assert many.standard_errors["defender"] < one.standard_errors["defender"] / 3
    gap = many.payoffs["defender"] - one.payoffs["defender"]
    assert abs(gap) < 4 * one.standard_errors["defender"]
    assert many.metrics["attacked_error"] == pytest.approx(-many.payoffs["defender"])


def test_as_many_draws_as_presentations_are_needed():
    with pytest.raises(ValueError, match=r"presentations = 5 of 4 draws"):
        Evasion(Digits(), presentations=5)


# Who is scored ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knowledge", "revealed", "scored"),
    [
        (Knowledge(), 0.5, 80),
        (Knowledge(samples=True), 0.5, 40),
        (Knowledge(samples=True), 0.25, 60),
        (Knowledge(samples=True), 0.0, 80),
    ],
)
def test_everything_is_scored_that_nobody_may_see(knowledge, revealed, scored):
    arena = evasion(
        attacker(Honest()), defender(PLAIN, knowledge=knowledge), examples=80, revealed=revealed
    )
    record = last(arena)
    assert len(record.costs["defender"]) == scored == arena.board.units
    shown = arena._past.revealed.get("attacker", [])
    assert sum(map(len, shown)) == 80 - scored


def test_something_must_be_left_to_score():
    arena = evasion(defender_=defender(PLAIN), revealed=1.0)
    with pytest.raises(ValueError, match="leaves none to score"):
        last(arena)


def test_what_may_be_fitted_on_is_what_the_defender_is_dealt():
    game = Evasion(Digits(), examples=80)
    players = {"attacker": attacker(), "defender": defender(PLAIN)}
    arena = Arena(game, players, MoveOrder.defender_first(), seed=4)
    given, mine = game.training(4), arena.data("defender")
    assert torch.equal(given.x, mine.x) and torch.equal(given.y, mine.y)
    distance = torch.cdist(given.x.flatten(1), arena.data("attacker").x.flatten(1)).min()
    assert distance > 0, "a test input among what may be fitted on"


# No answer --------------------------------------------------------------------------------------


class SilentWhereAttacked(nn.Module):
    """A linear model that answers NaN to inputs that are on no grid of sixteenths."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        moved = ((x * 16 - (x * 16).round()).abs() > 1e-4).flatten(1).any(1)
        return torch.where(moved[:, None], torch.nan, self.module(x))


def noisy_match(wrap=lambda module: module, cost=None):
    arena = evasion(defender_=defender(PLAIN), examples=80)
    module = ERM(MLP(()), epochs=10).train(arena.board.training, 0).module
    return evasion(attacker(Noise()), defender(Fixed(wrap(module)), cost=cost), examples=80)


def test_no_answer_costs_as_much_as_an_error_and_is_counted_apart():
    plain, record = last(noisy_match()), last(noisy_match(SilentWhereAttacked))
    assert record.metrics["no_answer"] > 0.5
    assert record.metrics["attacked_error"] >= record.metrics["no_answer"]
    assert (record.costs["defender"] >= plain.costs["defender"]).all()
    assert "no answer" in record.notes[-1] and record.zero_sum
    assert bool(record.costs["defender"].isfinite().all())


@pytest.mark.parametrize(
    ("strategy", "knowledge"),
    [
        (PGD(steps=3, step=0.5), Knowledge.white_box()),
        (DDN(steps=5), Knowledge.white_box()),
        (Square(steps=10), Knowledge.black_box("scores", 20)),
        (HopSkipJump(steps=1, init_trials=5), Knowledge.black_box("labels", 60)),
    ],
    ids=["PGD", "DDN", "Square", "HopSkipJump"],
)
def test_a_defender_that_breaks_down_gains_nothing(strategy, knowledge):
    """Attackers take an answer that is not there: it costs the defender as much as an error."""
    arena = evasion(defender_=defender(PLAIN), examples=40)
    module = ERM(MLP(()), epochs=10).train(arena.board.training, 0).module
    own = attacker(strategy, knowledge, Linf(0.3) if not isinstance(strategy, DDN) else L2(2.0))
    broken = evasion(own, defender(Fixed(SilentWhereAttacked(module))), examples=40)
    record = last(broken)
    assert record.metrics["no_answer"] > 0.5
    assert record.metrics["attacked_error"] > 0.9


def test_no_answer_costs_what_is_declared():
    record = last(noisy_match(SilentWhereAttacked, ErrorRate(no_answer=0.25)))
    silent = record.metrics["no_answer"]
    fooled = record.metrics["attacked_error"] - silent
    assert -record.payoffs["defender"] == pytest.approx(0.25 * silent + fooled)
