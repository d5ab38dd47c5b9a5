"""Evasion: inputs modified at test time against a classifier [F7, F8, F14].

The attacker is dealt one batch and not told its halves: one half, drawn at random, may be revealed
to a defender; the other alone is scored. "The defender trains on the attacks" then never means
that it trains on what it is scored on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from arena import chance
from arena.actions.decisions import Decisions
from arena.classification import Classifier, Perturbations
from arena.core import IllegalMove, Labelled, Move, Player, Task, first
from arena.data.source import Source
from arena.fields import Count, Share
from arena.games.game import Board, Game, Past, Scores
from arena.games.scoring import Scoring
from arena.knowledge import (
    REFUSED,
    LabelView,
    Ledger,
    SampleView,
    ScoreView,
    View,
    WhiteBox,
)

_EXHIBITED = 8


@dataclass(frozen=True)
class Evasion(Game):
    """The attacker sends inputs, the defender answers them.

    Attributes:
        source: The data.
        examples: How many the attacker is dealt; half of them are scored.
        test_share: Share kept for dealing, where the source has no test set of its own.
        attacker_share: Share of the training data that is the attacker's own, the rest being the
            defender's.
        device: Where everything runs; auto takes CUDA if it is there.
        batch_size: Most examples in one pass when scoring.
    """

    source: Source
    examples: Count = 600
    test_share: Share = 0.34
    attacker_share: Share = 0.2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: Count = 2048

    players: ClassVar[tuple[str, ...]] = ("attacker", "defender")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples < 2:
            raise ValueError("Evasion.examples must be at least 2: one to reveal, one to score")

    def grants(self, viewer: Player, opponent: Player, kind: type[View]) -> str | None:
        """Whether knowledge, the opponent's actions and its kind of move allow the view."""
        if kind is View:
            return None
        if kind not in (SampleView, LabelView, ScoreView, WhiteBox):
            return f"evasion has no view of that kind, {kind.__module__}.{kind.__name__}"
        if (why := viewer.knowledge.withholds(kind.__name__)) or kind is SampleView:
            return why
        if not issubclass(opponent.strategy.exposes, kind):
            return (
                f"{type(opponent.strategy).__name__} commits to a model that can show "
                f"{opponent.strategy.exposes.__name__} at most"
            )
        publishes = isinstance(opponent.actions, Decisions) and opponent.actions.publishes
        if issubclass(kind, ScoreView) and not viewer.knowledge.parameters and not publishes:
            return "the defender answers with a class only; use defender/actions=confidence"
        return None

    def torch_device(self) -> torch.device:
        """The device, checked.

        Raises:
            ValueError: If CUDA is asked for and absent.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device=cuda, but torch sees no CUDA here; use device=auto or cpu")
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(auto if self.device == "auto" else self.device)

    def deal(self, players: Mapping[str, Player], seed: int) -> "EvasionBoard":
        """Splits the data by the seed and deals them.

        Raises:
            ValueError: If there are too few data, or they do not fit the players' declarations.
        """
        device = self.torch_device()
        train, test = self.source.load()
        generator = torch.Generator().manual_seed(chance.seed_of(seed, "deal"))
        order = torch.randperm(len(train), generator=generator)
        if test is None:
            cut = round(self.test_share * len(train))
            test, order = train[order[:cut]], order[cut:]
        if len(test) < self.examples:
            raise ValueError(
                f"examples={self.examples}, but only {len(test)} test examples are there; "
                f"lower game.examples or raise game.test_share={self.test_share:g}"
            )
        cut = round(self.attacker_share * len(order))
        if cut == len(order):
            raise ValueError("attacker_share leaves the defender nothing to train on; lower it")
        dealt = test[torch.randperm(len(test), generator=generator)[: self.examples]]
        scored = torch.randperm(self.examples, generator=generator)[: self.examples // 2]
        for player in players.values():
            player.cost.check(train.classes)
        actions = players["attacker"].actions
        box = getattr(actions, "box", train.box)
        if tuple(box) != tuple(train.box):
            raise ValueError(f"attacker.actions.box={box}, but the data's is {train.box}")
        decisions = players["defender"].actions
        if isinstance(decisions, Decisions) and decisions.classes != train.classes:
            raise ValueError(
                f"defender.actions.classes={decisions.classes}, but the data have {train.classes}"
            )
        own = train[order[:cut]].to(device) if cut else None
        return EvasionBoard(
            players=players,
            dealt=dealt.to(device),
            scored=scored.sort().values.to(device),
            training=train[order[cut:]].to(device),
            own=own,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True)
class EvasionBoard(Board):
    """An evasion game as dealt."""

    players: Mapping[str, Player]
    dealt: Labelled
    scored: Tensor
    training: Labelled
    own: Labelled | None
    batch_size: int

    def data(self, player: str) -> Labelled:
        """The batch to attack, or the data to train on."""
        return self.dealt if player == "attacker" else self.training

    def aside(self, player: str) -> Labelled | None:
        """The attacker's own training data."""
        return self.own if player == "attacker" else None

    def opening(self, player: str) -> Move | None:
        """Honest inputs stand before the first round; a defender must train its own opening."""
        return self.dealt.x if player == "attacker" else None

    def check(self, player: str, move: Move) -> Move:
        """Checks inputs against the attacker's space, a model against the number of classes."""
        if player == "defender":
            if not isinstance(move, Classifier) or move.classes != self.dealt.classes:
                raise IllegalMove(
                    f"defender played {_short(move)}; "
                    f"play a Classifier of {self.dealt.classes} classes"
                )
            return move
        given = self.dealt.x
        if not isinstance(move, Tensor) or move.shape != given.shape or move.dtype != given.dtype:
            raise IllegalMove(
                f"attacker played {_short(move)}; play {given.dtype} {list(given.shape)}"
            )
        move = move.detach()
        actions = self.players["attacker"].actions
        if (i := first(~actions.permits(self.dealt, move))) is not None:
            row = slice(i, i + 1)
            raise IllegalMove(
                f"attacker's input {i} is outside {actions}: "
                f"{actions.explain(given[row], move[row])}"
            )
        return move

    def reveal(self, player: str, move: Move) -> Labelled | None:
        """The half of an attacker's inputs that is not scored."""
        if player == "defender":
            return None
        hidden = torch.ones(len(self.dealt), dtype=torch.bool, device=self.scored.device)
        hidden[self.scored] = False
        truth = self.players["attacker"].actions.truth(self.dealt, move)
        return replace(self.dealt, x=move, y=truth)[hidden.nonzero().squeeze(1)]

    def view(
        self, viewer: str, opponent: str, kind: type[View], past: Past, ledger: Ledger
    ) -> View:
        """The attacker's view of a committed model, or the defender's of what was revealed."""
        knowledge, rival = self.players[viewer].knowledge, self.players[opponent]
        facts: dict[str, Any] = {
            "task": Task(
                self.dealt.shape, self.dealt.classes, self.dealt.box, rival.actions, rival.cost
            ),
            **rival.strategy.facts(),
        }
        if opponent == "defender":
            facts["training_data"] = self.training
        if kind is View:
            return View(opponent, knowledge, facts)
        if issubclass(kind, SampleView):
            return kind(opponent, knowledge, facts, tuple(past.revealed[opponent]))
        assert issubclass(kind, LabelView)
        return kind(opponent, knowledge, facts, past.standing[opponent], ledger)

    @property
    def scoring(self) -> Scoring:
        """How standing moves are scored."""
        return Scoring(self.players, self.dealt, self.scored, self.batch_size)

    def costs(self, past: Past) -> Scores:
        """Scores the hidden half of the batch with the standing model.

        Raises:
            IllegalMove: If an answer is outside the defender's space.
            ValueError: If the model has no finite answer to an input as it was dealt.
            Refuted: If a mistake was made on an example that is certified to allow none.
        """
        scoring, dealt = self.scoring, self.dealt[self.scored]
        committed = scoring.committed(past.standing["defender"])
        ledger = past.ledgers["attacker"]
        sent = scoring.sent(past.standing["attacker"], ledger.queries, ledger.gradients)
        outcome = scoring.outcome(committed, sent)
        valid, clean, attacked = outcome.valid, committed.clean, outcome.attacked
        notes: tuple[str, ...] = ()
        if invalid := int((~valid).sum()):
            notes = (
                f"{invalid} of {len(valid)} attacked inputs got NaN or infinite logits, the first "
                f"is input {int(self.scored[(~valid).nonzero()[0, 0]])}: not scored",
            )
        wrong = (attacked.labels != sent.y)[valid].double()
        metrics = {
            "clean_error": float((clean.labels != dealt.y).double().mean()),
            "attacked_error": float(wrong.mean()),
            "refused": float((attacked.labels == REFUSED).double().mean()),
            "not_finite": float(invalid),
            "queries": float(sent.queries.double().mean()),
            "gradients": float(sent.gradients.double().mean()),
        }
        if committed.certified is not None:
            metrics["certified_error"] = float((~committed.certified).double().mean())
        actions = self.players["attacker"].actions
        if isinstance(actions, Perturbations):
            metrics["size"] = float(actions.size(dealt.x, sent.x).double().mean())
        few = slice(_EXHIBITED)
        exhibit = {
            "clean": dealt.x[few],
            "attacked": sent.x[few],
            "y": sent.y[few],
            "clean_answer": clean.labels[few],
            "attacked_answer": attacked.labels[few],
        }
        exhibit = {name: tensor.cpu() for name, tensor in exhibit.items()}
        proved = None if committed.certified is None else committed.certified.cpu()
        return Scores(scoring.costs(outcome), metrics, exhibit, notes, proved)

    def sealed(self, past: Past) -> Iterator[Tensor]:
        """All data, everything revealed, and the standing moves."""
        batches = [self.dealt, self.training, *past.revealed["attacker"]]
        for batch in batches if self.own is None else [*batches, self.own]:
            yield from (batch.x, batch.y)
        for move in past.standing.values():
            yield from move.state().values() if isinstance(move, Classifier) else (move,)

    def pack(self, player: str, move: Move) -> dict[str, Tensor]:
        """Inputs, or the model's parameters."""
        state = {"x": move} if player == "attacker" else move.state()
        return {name: tensor.cpu() for name, tensor in state.items()}

    def unpack(self, player: str, packed: Mapping[str, Tensor]) -> Move:
        """Inputs, or the model with these parameters."""
        if player == "attacker":
            return packed["x"].to(self.dealt.x.device)
        return self.players[player].strategy.restore(packed, self.training)


def _short(move: Move) -> str:
    if isinstance(move, Tensor):
        return f"{move.dtype} {list(move.shape)}"
    return f"a {type(move).__name__}"
