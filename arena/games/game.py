"""What the rules of a game are: how it is dealt, what may be seen, what standing moves cost."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from arena.core import Labelled, Move, Player
from arena.fields import Declared
from arena.knowledge import Ledger, View


class Board(ABC):
    """A game as dealt: the data, and the rules over moves made on it."""

    @abstractmethod
    def data(self, player: str) -> Labelled:
        """What the player was dealt."""

    def aside(self, player: str) -> Labelled | None:
        """Data of its own for the player to train on."""
        return None

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
        """What of a move others may come to see, if any of it; kept for every round."""
        return None

    @abstractmethod
    def view(
        self, viewer: str, opponent: str, kind: type[View], past: "Past", ledger: Ledger
    ) -> View:
        """A view, already known to be granted, of the opponent's standing move.

        Probes are charged to the ledger.
        """

    @abstractmethod
    def costs(self, past: "Past") -> "Scores":
        """What the standing moves cost every player."""

    def sealed(self, past: "Past") -> Iterable[Tensor]:
        """The tensors that strategies may be shown and must not change in place."""
        return ()

    @abstractmethod
    def pack(self, player: str, move: Move) -> dict[str, Tensor]:
        """The move as tensors, for a checkpoint."""

    @abstractmethod
    def unpack(self, player: str, packed: Mapping[str, Tensor]) -> Move:
        """The inverse of `pack`."""


@dataclass
class Past:
    """What has been played: all that a match carries from one round to the next.

    Attributes:
        standing: Each player's latest move.
        made: The round in which it was made (-1: the opening).
        revealed: What each player has let be seen, a batch per round, oldest first.
        ledgers: Per player, what its latest move asked of its opponents.
    """

    standing: dict[str, Move]
    made: dict[str, int]
    revealed: dict[str, list[Labelled]]
    ledgers: dict[str, Ledger]


@dataclass(frozen=True)
class Scores:
    """What a round came to.

    Attributes:
        costs: Per-example costs [n] of every player; NaN where an example could not be scored.
        metrics: Further figures to log.
        exhibit: A few examples to look at, tensors by name.
        notes: Sentences about what could not be scored.
        certified: Whether [n] it is proved that no legal move makes the defender err on an
            example; None where nothing is proved.
    """

    costs: dict[str, Tensor]
    metrics: dict[str, float]
    exhibit: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    certified: Tensor | None = None


class Game(Declared, ABC):
    """The rules. Frozen; `deal` puts the data on the table."""

    players: ClassVar[tuple[str, ...]]

    @abstractmethod
    def grants(self, viewer: Player, opponent: Player, kind: type[View]) -> str | None:
        """Why the viewer may not have such a view of the opponent, or None if it may."""

    @abstractmethod
    def deal(self, players: Mapping[str, Player], seed: int) -> Board:
        """Loads the data and deals it."""
