"""Evasion: inputs modified at test time against a classifier [F7, F8, F14].

The attacker is dealt one batch. Where somebody may see samples of what it plays, a part of the
batch, drawn at random and not told to the attacker, is set apart to be revealed, and only the rest
is scored. So a defender that trains on the attacks never trains on what it is scored on. Where
nobody may see samples, everything that was dealt is scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from arena import chance
from arena.actions.decisions import Decisions
from arena.classification import Classifier, Perturbations
from arena.core import IllegalMove, Labelled, Move, Player, Strategy, Task, first
from arena.data.source import Source
from arena.defenses.constant import Constant
from arena.fields import Count, Share
from arena.games.game import Board, Description, Entry, Facts, Game, Measure, Past, Scores
from arena.games.scoring import Committed, EvasionScores, Scoring, Sent
from arena.knowledge import INVALID, REFUSED, LabelView, SampleView, ScoreView, View, WhiteBox
from arena.ledger import Ledger, Meter

_EXHIBITED = 8


@dataclass(frozen=True)
class Evasion(Game):
    """The attacker sends inputs, the defender answers them.

    Attributes:
        source: The data.
        examples: How many the attacker is dealt.
        revealed: Share of them that is revealed to whoever may see samples, and not scored. Where
            nobody may, all are scored.
        test_share: Share kept for dealing, where the source has no test set of its own.
        attacker_share: Share of the training data that is the attacker's own, the rest being the
            defender's.
        draws: How many draws of a random defender's coins it is scored over.
        presentations: How often the attacker may present each input to a random defender; it
            succeeds if any presentation does. At most `draws`.
        device: Where everything runs; auto takes CUDA if it is there.
        batch_size: Most examples in one pass when scoring.
    """

    source: Source
    examples: Count = 600
    revealed: Share = 0.5
    test_share: Share = 0.34
    attacker_share: Share = 0.2
    draws: Count = 4
    presentations: Count = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: Count = 2048

    players: ClassVar[tuple[str, ...]] = ("attacker", "defender")
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("attacked_error", "error under attack"),
        Measure("clean_error", "clean error"),
        Measure("queries", "queries", digits=1, interval=False),
        Measure("gradients", "gradients", digits=1, interval=False),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.presentations > self.draws:
            raise ValueError(
                f"Evasion.presentations = {self.presentations} of {self.draws} draws: the best of "
                "so many presentations needs at least as many draws; raise game.draws"
            )

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

    def idle(self, player: str) -> Strategy:
        """An attacker that sends inputs as they are; a defender with one answer to everything."""
        return super().idle(player) if player == "attacker" else Constant()

    def training(self, seed: int) -> Labelled:
        """What a defender may fit its model on, on the CPU, in a match of this seed.

        A model of one's own that was fitted on anything else may have seen the inputs that it is
        tested with.
        """
        return self._split(seed)[0]

    def _split(self, seed: int) -> tuple[Labelled, Labelled | None, Labelled]:
        """The defender's training data, the attacker's own, and what may be dealt, shuffled.

        Raises:
            ValueError: If there are too few data.
        """
        train, test = self.source.load()
        secret = chance.secret(seed)
        generator = torch.Generator().manual_seed(chance.seed_of(secret, "deal"))
        order = torch.randperm(len(train), generator=generator)
        if test is None:
            kept = round(self.test_share * len(train))
            test, order = train[order[:kept]], order[kept:]
        if len(test) < self.examples:
            raise ValueError(
                f"game.examples={self.examples}, but only {len(test)} test examples are there; "
                "lower it or raise test_share"
            )
        cut = round(self.attacker_share * len(order))
        if cut == len(order):
            raise ValueError("attacker_share leaves the defender nothing to train on; lower it")
        own = train[order[:cut]] if cut else None
        return train[order[cut:]], own, test[torch.randperm(len(test), generator=generator)]

    def deal(self, players: Mapping[str, Player], seed: int) -> "EvasionBoard":
        """Splits the data by the seed and deals them.

        Raises:
            ValueError: If there are too few data, or they do not fit the players' declarations.
        """
        device = self.torch_device()
        training, own, test = self._split(seed)
        dealt = test[: self.examples]
        secret = chance.secret(seed)
        for player in players.values():
            player.cost.check(training.classes)
        actions = players["attacker"].actions
        box = getattr(actions, "box", training.box)
        if tuple(box) != tuple(training.box):
            raise ValueError(f"attacker.actions.box={box}, but the data's is {training.box}")
        decisions = players["defender"].actions
        if isinstance(decisions, Decisions) and decisions.classes != training.classes:
            raise ValueError(
                f"defender.actions.classes={decisions.classes}, but the data have "
                f"{training.classes}"
            )
        return EvasionBoard(
            players=players,
            dealt=dealt.to(device),
            scored=self._scored(players, secret).to(device),
            training=training.to(device),
            own=None if own is None else own.to(device),
            batch_size=self.batch_size,
            coins=chance.seed_of(secret, "coins"),
            draws=self.draws,
            presentations=self.presentations,
        )

    def _scored(self, players: Mapping[str, Player], secret: bytes) -> Tensor:
        """The rows that are scored, ascending.

        Raises:
            ValueError: If somebody may see samples, and nothing would be left to score.
        """
        if not any(player.knowledge.samples for player in players.values()):
            return torch.arange(self.examples)
        shown = round(self.revealed * self.examples)
        if shown == self.examples:
            raise ValueError(
                f"game.revealed={self.revealed:g} of {self.examples} examples leaves none to "
                "score; lower it, or deal more"
            )
        generator = torch.Generator().manual_seed(chance.seed_of(secret, "scored"))
        return torch.randperm(self.examples, generator=generator)[shown:].sort().values


@dataclass(frozen=True)
class EvasionBoard(Board):
    """An evasion game as dealt.

    Attributes:
        players: The declarations.
        dealt: What the attacker perturbs.
        scored: The rows of it that are scored, int64 [n].
        training: What the defender trains on.
        own: What the attacker may train on; None: nothing.
        batch_size: Most examples in one pass when scoring.
        coins: Seed of a random defender's coins.
        draws: How many draws of them are made.
        presentations: How often the attacker may present each input.
    """

    players: Mapping[str, Player]
    dealt: Labelled
    scored: Tensor
    training: Labelled
    own: Labelled | None
    batch_size: int
    coins: int = 0
    draws: int = 1
    presentations: int = 1

    @property
    def units(self) -> int:
        """The scored inputs."""
        return len(self.scored)

    def data(self, player: str, past: Past) -> Labelled:
        """The batch to attack, or the data to train on, whatever was played."""
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
        """The part of an attacker's inputs that is not scored."""
        hidden = torch.ones(len(self.dealt), dtype=torch.bool, device=self.scored.device)
        hidden[self.scored] = False
        if player == "defender" or not bool(hidden.any()):
            return None
        truth = self.players["attacker"].actions.truth(self.dealt, move)
        return replace(self.dealt, x=move, y=truth)[hidden.nonzero().squeeze(1)]

    def view(
        self,
        viewer: str,
        opponent: str,
        kind: type[View],
        past: Past,
        ledger: Ledger,
        meter: Meter,
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
            facts["training_data"] = self.data("defender", past)
        if kind is View:
            return View(opponent, knowledge, facts)
        if issubclass(kind, SampleView):
            return kind(opponent, knowledge, facts, tuple(past.revealed.get(opponent, ())))
        assert issubclass(kind, LabelView)
        return kind(opponent, knowledge, facts, past.standing[opponent], ledger, meter)

    @cached_property
    def scoring(self) -> Scoring:
        """How moves are scored."""
        return Scoring(
            self.players,
            self.dealt,
            self.scored,
            self.batch_size,
            self.coins,
            self.draws,
            self.presentations,
        )

    def score(self, moves: Mapping[str, Entry]) -> EvasionScores:
        """What the defender's answers to the attacker's inputs cost.

        Raises:
            IllegalMove: If an answer is outside the defender's space.
            ValueError: If the model has no finite answer to an input as it was dealt.
            Refuted: If a mistake was made on an example that is certified to allow none.
        """
        scoring = self.scoring
        return scoring.score(scoring.committed(moves["defender"]), scoring.sent(moves["attacker"]))

    def prepared(self, player: str, entry: Entry) -> Committed | Sent:
        """A model with its clean answers and certificates; inputs with what they changed."""
        scoring = self.scoring
        return scoring.sent(entry) if player == "attacker" else scoring.committed(entry)

    def facts(self, entry: Entry) -> Facts:
        """What is certified of a model, and its answers to the scored inputs as dealt."""
        committed = self.scoring.committed(entry)
        return Facts(
            most=self.scoring.most(committed),
            proved=committed.certified is not None,
            answers=committed.clean[0].labels.cpu(),
        )

    def describe(self, moves: Mapping[str, Entry], scores: Scores) -> Description:
        """Error rates, what the attack took, and a few inputs beside their answers."""
        assert isinstance(scores, EvasionScores)
        scoring, outcomes = self.scoring, scores.outcomes
        committed, sent = scoring.committed(moves["defender"]), scoring.sent(moves["attacker"])
        dealt = self.dealt[self.scored]
        silent = [each.attacked.labels == INVALID for each in outcomes]
        metrics = {
            "clean_error": scores.mean([each.clean.labels != dealt.y for each in outcomes]),
            "attacked_error": scores.mean([each.attacked.labels != sent.y for each in outcomes]),
            "refused": scores.mean([each.attacked.labels == REFUSED for each in outcomes]),
            "no_answer": scores.mean(silent),
            "queries": float(sent.asked.double().mean()),
            "gradients": float(sent.differentiated.double().mean()),
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
            "clean_answer": outcomes[0].clean.labels[few],
            "attacked_answer": outcomes[0].attacked.labels[few],
        }
        exhibit = {name: tensor.cpu() for name, tensor in exhibit.items()}
        return Description(metrics, exhibit, self._notes(torch.stack(silent).any(0)))

    def _notes(self, silent: Tensor) -> tuple[str, ...]:
        if (i := first(silent)) is None:
            return ()
        return (
            f"{int(silent.sum())} of {len(silent)} attacked inputs got NaN or infinite logits, the "
            f"first is input {int(self.scored[i])}: no answer, which costs what the defender's "
            "cost says",
        )

    def lean(self) -> "EvasionBoard":
        """The board without training data: only their shape is needed to restore a model."""
        return replace(self, training=self.training[:0], own=None)

    def content(self) -> Sequence[Any]:
        """What was dealt, what of it is scored and how, and the declared actions and costs."""
        declared = [(player.actions, player.cost) for player in self.players.values()]
        dealt = self.dealt
        coins = self.coins, self.draws, self.presentations
        return [dealt.x, dealt.y, self.scored, dealt.classes, dealt.box, coins, declared]

    def pack(self, player: str, move: Move) -> dict[str, Tensor]:
        """Inputs, or the model's parameters."""
        state = {"x": move} if player == "attacker" else move.state()
        return {name: tensor.cpu() for name, tensor in state.items()}

    def unpack(self, player: str, packed: Mapping[str, Tensor], strategy: Strategy) -> Move:
        """Inputs, or the model with these parameters."""
        if player == "attacker":
            return packed["x"].to(self.dealt.x.device)
        return strategy.restore(packed, self.training)


def _short(move: Move) -> str:
    if isinstance(move, Tensor):
        return f"{move.dtype} {list(move.shape)}"
    return f"a {type(move).__name__}"
