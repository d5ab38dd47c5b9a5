"""Knowledge is enforced: views lack what may not be seen, budgets hold exactly."""

import itertools
import types

import pytest
import torch
from small import LINEAR, attacker, defender, evasion, last
from torch import nn

from arena import (
    BudgetExceeded,
    Classifier,
    Knowledge,
    LabelView,
    SampleView,
    ScoreView,
    Strategy,
    Unplayable,
    View,
    WhiteBox,
)
from arena.actions.lp import Linf
from arena.attacks.hopskipjump import HopSkipJump
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.attacks.transfer import Transfer
from arena.core import Move, Turn
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.ledger import Ledger


class Spy(Strategy):
    """Takes whatever view it was told to, and lets a test look at it."""

    def __init__(self, opponent, kind, look):
        object.__setattr__(self, "opponent", opponent)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "look", look)

    @property
    def needs(self):
        return {self.opponent: self.kind}

    def __post_init__(self):
        pass

    def respond(self, turn: Turn) -> Move:
        view = turn.see(self.opponent, self.kind)
        self.look(turn, view)
        return turn.data.x


def public(thing):
    """What can be reached of an object by names without an underscore."""
    for name in dir(thing):
        if name.startswith("_"):
            continue
        try:
            yield name, getattr(thing, name)
        except (PermissionError, AttributeError, NotImplementedError):
            continue


def reachable(root, depth=6):
    """Everything that public attributes, items and closures lead to, with the way there."""
    seen, queue = set(), [("view", root, 0)]
    while queue:
        path, thing, level = queue.pop()
        if id(thing) in seen or level > depth:
            continue
        seen.add(id(thing))
        yield path, thing
        if isinstance(thing, torch.Tensor | str | int | float | bool | type(None)):
            continue
        if isinstance(thing, types.BuiltinFunctionType | types.ModuleType | type):
            continue
        if isinstance(thing, dict):
            queue += [(f"{path}[{k!r}]", v, level + 1) for k, v in thing.items()]
        elif isinstance(thing, list | tuple):
            queue += [(f"{path}[{i}]", v, level + 1) for i, v in enumerate(thing)]
        elif not isinstance(thing, types.FunctionType | types.MethodType):
            queue += [(f"{path}.{name}", v, level + 1) for name, v in public(thing)]


GRANTS = [
    Knowledge(),
    Knowledge.gray_box(),
    Knowledge.black_box("labels", 5),
    Knowledge.black_box("scores", 5),
    Knowledge(algorithm=True, architecture=True, training_data=True, probe="scores"),
]
WIDEST = {"none": View, "labels": LabelView, "scores": ScoreView}


def widest(knowledge):
    """The most that the declaration lets an attacker see, said here once more."""
    return WhiteBox if knowledge.parameters else WIDEST[knowledge.probe]


STRATEGIES = [
    ERM(LINEAR, epochs=1),
    AdversarialTraining(LINEAR, epochs=1),
    Fixed(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))),
]


@pytest.mark.parametrize(("knowledge", "strategy"), list(itertools.product(GRANTS, STRATEGIES)))
def test_nothing_below_white_box_leaks_a_module_a_gradient_or_a_free_probe(knowledge, strategy):
    kind = widest(knowledge)
    looked = []

    def look(turn, view):
        for path, thing in [*reachable(view), *reachable(view.on(torch.arange(3)))]:
            assert not isinstance(thing, nn.Module | Classifier), f"{path} is a model"
            assert not (isinstance(thing, torch.Tensor) and thing.requires_grad), path
            assert not isinstance(thing, Ledger), f"{path} is the ledger"
        x = turn.data.x[:1].clone().requires_grad_()
        rows = torch.zeros(1, dtype=torch.int64)
        before = view.remaining(rows) if isinstance(view, LabelView) else None
        probes = [name for name, value in public(view) if callable(value)]
        allowed = {View: set(), LabelView: {"labels"}, ScoreView: {"labels", "scores"}}[kind]
        assert set(probes) - {"knows", "remaining", "on"} == allowed, "an unknown way to ask"
        part = view.on(torch.tensor([1, 0]))  # which calls example 0 its second
        for asked, name in enumerate(sorted(allowed), start=1):
            answer = getattr(part if asked % 2 else view, name)(x, rows + asked % 2)
            assert not answer.requires_grad and answer.grad_fn is None
            if knowledge.queries is not None:
                assert int(view.remaining(rows)) == int(before) - asked
        looked.append(view)

    spy = Spy("defender", kind, look)
    record = last(evasion(attacker(spy, knowledge), defender(strategy)))
    assert looked
    expected = {View: 0, LabelView: 1, ScoreView: 2}[kind]
    ledger_total = record.metrics["queries"] * 40  # the scored half, of which row 0 may be one
    assert ledger_total in (0, expected)


@pytest.mark.parametrize("name", ["algorithm", "architecture", "training_data"])
def test_facts_are_there_exactly_when_granted(name):
    def look(turn, view):
        assert view.knows("task") and not view.knows(name)
        with pytest.raises(PermissionError, match=f"{name} of the defender is hidden"):
            getattr(view, name)

    last(evasion(attacker(Spy("defender", View, look), Knowledge())))

    def granted(turn, view):
        assert view.knows(name) and getattr(view, name) is not None

    knowledge = Knowledge(**{name: True})
    last(evasion(attacker(Spy("defender", View, granted), knowledge)))


def test_the_algorithm_does_not_carry_the_architecture():
    def look(turn, view):
        assert view.algorithm.learner is None
        with pytest.raises(PermissionError):
            _ = view.architecture

    last(evasion(attacker(Spy("defender", View, look), Knowledge(algorithm=True))))


@pytest.mark.parametrize(
    ("knowledge", "kind"),
    [
        (Knowledge(), LabelView),
        (Knowledge.black_box("labels"), ScoreView),
        (Knowledge.black_box("scores"), WhiteBox),
        (Knowledge(), SampleView),
    ],
)
def test_more_than_was_granted_is_refused_before_anything_trains(knowledge, kind):
    class Untrainable(ERM):
        def train(self, *args, **kwargs):
            raise AssertionError("trained")

    def look(turn, view):
        raise AssertionError("seen")

    spy = Spy("defender", kind, look)
    with pytest.raises(Unplayable, match=f"needs a {kind.__name__} of the defender"):
        evasion(attacker(spy, knowledge), defender(Untrainable(LINEAR)))


def test_a_strategy_cannot_see_more_than_it_declared_it_may():
    class Sneak(Spy):
        def respond(self, turn):
            with pytest.raises(PermissionError, match="may not have a WhiteBox"):
                turn.see("defender", WhiteBox)
            with pytest.raises(PermissionError, match="cannot look at 'attacker'"):
                turn.see("attacker", View)
            return turn.data.x

    sneak = Sneak("defender", LabelView, None)
    last(evasion(attacker(sneak, Knowledge.black_box("labels"))))


def test_a_label_only_defender_has_no_scores_to_probe():
    from arena.actions.decisions import Class

    with pytest.raises(Unplayable, match="answers with a class only"):
        evasion(attacker(Square(), Knowledge.black_box("scores")), defender(actions=Class()))


def test_a_model_without_gradients_cannot_be_a_white_box():
    labels_only = Fixed(lambda x: torch.zeros(len(x), dtype=torch.int64))
    with pytest.raises(Unplayable, match="can show LabelView at most"):
        evasion(attacker(PGD()), defender(labels_only))


def test_a_defender_sees_the_revealed_half_only():
    seen = []

    def look(turn, view):
        seen.extend(view.samples)
        return None

    class Watcher(ERM):
        needs = {"attacker": SampleView}  # noqa: RUF012

        def respond(self, turn):
            look(turn, turn.see("attacker", SampleView))
            return super().respond(turn)

    arena = evasion(defender_=defender(Watcher(LINEAR, epochs=1)), order="attacker_first")
    list(arena.play(2))
    board = arena.board
    scored = board.dealt.x[board.scored]
    assert len(seen) == 0 + 1 + 2  # the opening sees nothing, then a batch more each round
    for batch in seen:
        assert len(batch) == len(board.dealt) - len(scored)
        distance = torch.cdist(batch.x.flatten(1), scored.flatten(1), p=torch.inf).min(1).values
        # An attacked input is within eps of its own dealt input, and of no scored one.
        own = torch.cdist(batch.x.flatten(1), board.dealt.x.flatten(1), p=torch.inf).min(1).values
        assert (own <= 0.15 * 1.001).all() and (distance > own).all()


# Budgets ---------------------------------------------------------------------------------------


def test_a_ledger_stops_exactly_at_the_limit():
    ledger = Ledger(3, budget=2)
    rows = torch.tensor([0, 1])
    ledger.charge(rows)
    ledger.charge(rows)
    assert ledger.remaining(torch.arange(3)).tolist() == [0, 0, 2]
    with pytest.raises(BudgetExceeded, match="example 1 has 0 of 2 queries left"):
        ledger.charge(torch.tensor([2, 1]))
    assert ledger.queries.tolist() == [2, 2, 0], "a refused probe charges nobody"
    with pytest.raises(BudgetExceeded, match="3 were asked for"):
        ledger.charge(torch.tensor([2, 2, 2]))
    ledger.charge(torch.tensor([2, 2]))
    assert ledger.queries.tolist() == [2, 2, 2]


@pytest.mark.parametrize("budget", [1, 2, 7, 40])
@pytest.mark.parametrize(
    ("strategy", "probe"),
    [(Square(steps=60), "scores"), (HopSkipJump(steps=3, initial_evals=5), "labels")],
)
def test_attacks_use_up_to_the_budget_and_never_more(strategy, probe, budget):
    arena = evasion(attacker(strategy, Knowledge.black_box(probe, budget)))
    record = last(arena)
    queries = arena._past.ledgers["attacker"].queries
    assert int(queries.max()) == budget, "somebody needed all of it"
    assert not record.notes, "nobody ran into the limit"


def test_who_runs_into_the_limit_plays_what_it_kept():
    class Careless(Strategy):
        needs = {"defender": LabelView}  # noqa: RUF012

        def __post_init__(self):
            pass

        def respond(self, turn):
            view = turn.see("defender", LabelView)
            rows = torch.arange(len(turn.data))
            moved = (turn.data.x + 0.1).clamp(0, 1)
            turn.keep(rows[:10], moved[:10])
            while True:
                view.labels(moved, rows)

    arena = evasion(attacker(Careless(), Knowledge.black_box("labels", 3)))
    record = last(arena)
    assert "ran into its budget" in record.notes[0]
    played, dealt = arena._past.standing["attacker"], arena.board.dealt.x
    assert torch.equal(played[:10], (dealt[:10] + 0.1).clamp(0, 1))
    assert torch.equal(played[10:], dealt[10:])
    assert record.metrics["queries"] == 3


def test_passes_and_gradients_of_a_white_box_are_counted():
    pgd = attacker(PGD(steps=7, step=0.1, restarts=2))
    record = last(evasion(pgd, order="attacker_first"))
    assert record.metrics["gradients"] == 14
    assert record.metrics["queries"] == 16


def test_whom_nothing_more_can_be_won_from_is_left_alone():
    unbroken = last(evasion(attacker(PGD(steps=7, step=0.1), actions=Linf(0.0))))
    clean = unbroken.metrics["clean_error"]
    assert 0 < clean < 1
    assert unbroken.metrics["queries"] == pytest.approx(8 - 7 * clean)
    assert unbroken.metrics["gradients"] == pytest.approx(7 - 6 * clean)


def test_transfer_asks_the_target_nothing():
    guess = Transfer(ERM(LINEAR, epochs=20))
    players = attacker(guess, Knowledge.no_box()), defender(ERM(LINEAR, epochs=20))
    record = last(evasion(*players))
    assert record.metrics["queries"] == record.metrics["gradients"] == 0
    assert record.metrics["attacked_error"] > record.metrics["clean_error"]


def test_knowledge_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="without a probe"):
        Knowledge(queries=5)
    with pytest.raises(ValueError, match="must be one of none, labels, scores"):
        Knowledge(probe="logits")


def test_a_view_of_a_players_own_making_is_refused_whatever_its_name():
    disguise = type("LabelView", (WhiteBox,), {})
    for kind in (type("Mine", (WhiteBox,), {}), disguise):
        spy = attacker(Spy("defender", kind, lambda turn, view: None), Knowledge.white_box())
        with pytest.raises(Unplayable, match="no view of that kind"):
            evasion(spy)


@pytest.mark.parametrize("knowledge", [*GRANTS, Knowledge.white_box()], ids=str)
def test_what_is_withheld_by_name_is_what_the_arena_refuses(knowledge):
    for kind in (View, LabelView, ScoreView, WhiteBox):
        assert (knowledge.withholds(kind.__name__) is None) == issubclass(widest(knowledge), kind)
