"""What the rules of a game are: how it is dealt, what may be seen, what moves cost.

A game owns its data and its score. What a player works on comes from `Board.data`, which may
depend on what others have played; what moves are worth comes from `Board.score`, whoever asks:
rounds, cells of cross-play, oracles, studies.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from arena.core import Idle, Labelled, Move, Player, Strategy, Turn
from arena.fields import Declared
from arena.knowledge import View
from arena.ledger import Ledger, Meter


@dataclass(frozen=True)
class Entry:
    """A move, and what it took to make it: what a score is computed from.

    Attributes:
        move: As `Board.check` returned it.
        queries: Asked about each of the n examples that the player worked on, int64 [n].
        gradients: Taken of each, int64 [n].
    """

    move: Move
    queries: Tensor
    gradients: Tensor


@dataclass
class Past:
    """What has been played: all that a match carries from one round to the next.

    Attributes:
        standing: Each player's latest move.
        made: The round in which it was made (-1: the opening).
        revealed: What each player has let be seen, a batch per round, oldest first.
        ledgers: Per player, what its moves of the round in which it last moved asked.
        spent: Per player whose budget is for the whole match, what its moves of all rounds before
            that one asked, int64 [n].
    """

    standing: dict[str, Move] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    revealed: dict[str, list[Labelled]] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    spent: dict[str, Tensor] = field(default_factory=dict)

    def entries(self) -> dict[str, Entry]:
        """The standing moves with what they took."""
        return {
            name: Entry(move, self.ledgers[name].queries, self.ledgers[name].gradients)
            for name, move in self.standing.items()
        }


@dataclass(frozen=True)
class Scores:
    """What moves cost. A game may return a subclass that remembers more for `Board.describe`.

    Attributes:
        costs: By player, the cost of every unit, float64 [n] on the CPU, finite.
        certified: Whether [n] it is proved that no legal move of the attacker makes the defender
            err on the unit, on the CPU; None where nothing is proved.
    """

    costs: Mapping[str, Tensor]
    certified: Tensor | None = None


@dataclass(frozen=True)
class Description:
    """What there is to say of scored moves besides their costs, for the log.

    Attributes:
        metrics: Figures by name.
        exhibit: A few examples to look at, tensors by name.
        notes: Sentences about what was out of the ordinary.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    exhibit: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What is known of a defender's move before anybody moves against it.

    Attributes:
        most: The most that it can cost the defender on each unit, whatever the attacker plays,
            float64 [n] on the CPU; None: unknown.
        proved: Whether `most` rests on a certificate anywhere.
        answers: What it answers to what a probe may ask about, int64 [P] on the CPU; None: unknown.
    """

    most: Tensor | None = None
    proved: bool = False
    answers: Tensor | None = None


@dataclass(frozen=True)
class Measure:
    """A metric that studies show.

    Attributes:
        name: In `Description.metrics`.
        title: In tables.
        digits: After the point.
        interval: Whether it is shown with its interval.
        bounds: Between which it lies.
    """

    name: str
    title: str
    digits: int = 3
    interval: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)


class Board(ABC):
    """A game as dealt: the data, and the rules over moves made on it."""

    players: Mapping[str, Player]
    """The declarations."""

    @property
    @abstractmethod
    def units(self) -> int:
        """How many units n are scored: attacked examples, test rows, members, queries."""

    @abstractmethod
    def data(self, player: str, past: Past) -> Labelled:
        """What the player works on, given what others have played: the only source of data."""

    def aside(self, player: str) -> Labelled | None:
        """Data of its own for the player to train on."""
        return None

    def asked(self, player: str, turn: Turn) -> Move:
        """How the player's strategy is asked for its move: by default for its response.

        A game in which the player moves by algorithm returns an `Algorithm` of the strategy.
        """
        return turn.player.strategy.respond(turn)

    @abstractmethod
    def opening(self, player: str) -> Move | None:
        """The move that stands before the first round; None: ask the player's strategy."""

    @abstractmethod
    def check(self, player: str, move: Move) -> Move:
        """Returns the move as it will stand.

        Raises:
            IllegalMove: If the rules or the player's space do not allow it.
        """

    def reveal(self, player: str, move: Move) -> Labelled | None:
        """The part of a move that others may come to see, if any; kept for every round."""
        return None

    @abstractmethod
    def view(
        self,
        viewer: str,
        opponent: str,
        kind: type[View],
        past: Past,
        ledger: Ledger,
        meter: Meter,
    ) -> View:
        """A view, already known to be granted, of the opponent's standing move.

        Probes are charged to the ledger; passes through a module are counted by the meter.
        """

    @abstractmethod
    def score(self, moves: Mapping[str, Entry]) -> Scores:
        """What the moves cost every player: the only way in which anything is scored.

        `moves` may have been `prepared`.
        """

    def prepared(self, player: str, entry: Entry) -> Entry:
        """The entry with the part of a score that it alone decides; idempotent.

        Where many moves meet many others, this part is computed once for each move.
        """
        return entry

    def facts(self, entry: Entry) -> Facts:
        """What is known of a defender's move, prepared or not, before anybody moves against it."""
        return Facts()

    def describe(self, moves: Mapping[str, Entry], scores: Scores) -> Description:
        """What there is to say of moves and their scores, for the log."""
        return Description()

    def lean(self) -> "Board":
        """The same board with what `score`, `facts` and `unpack` need only: sent to workers."""
        return self

    @abstractmethod
    def content(self) -> Sequence[Any]:
        """What decides a score besides the moves: declarations, numbers and tensors.

        Cells are kept by a hash of it.
        """

    def sealed(self, past: Past) -> dict[str, Any]:
        """By name, what strategies may be shown and must not change in place: by default all."""
        shown = {
            f"what the {name} revealed in batch {number}": batch
            for name, batches in past.revealed.items()
            for number, batch in enumerate(batches)
        }
        moves = {f"the {name}'s move": move for name, move in past.standing.items()}
        return {"the game's data": self, **shown, **moves}

    @abstractmethod
    def pack(self, player: str, move: Move) -> dict[str, Tensor]:
        """The move as tensors, for a file."""

    @abstractmethod
    def unpack(self, player: str, packed: Mapping[str, Tensor], strategy: Strategy) -> Move:
        """The inverse of `pack`, for a move that this strategy made."""


class Game(Declared, ABC):
    """The rules. Frozen; `deal` puts the data on the table."""

    players: ClassVar[tuple[str, ...]]

    unit: ClassVar[str] = "example"
    """What is scored, in one word: a unit of the payoff tensor."""

    measures: ClassVar[tuple[Measure, ...]] = ()
    """The metrics that studies show, the most important first."""

    @abstractmethod
    def grants(self, viewer: Player, opponent: Player, kind: type[View]) -> str | None:
        """Why the viewer may not have such a view of the opponent, or None if it may."""

    @abstractmethod
    def deal(self, players: Mapping[str, Player], seed: int) -> Board:
        """Loads the data and deals it, as a function of the match's seed.

        Raises:
            ValueError: If the data do not fit the declarations.
        """

    def idle(self, player: str) -> Strategy:
        """How the player moves who does nothing, so that another's move can be made alone.

        By default it plays the move that stands before the first round.
        """
        return Idle()
