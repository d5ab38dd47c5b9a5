"""Studies, and what they are given: the configured match and a folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from arena.arena import Arena
from arena.core import MoveOrder, Player
from arena.empirical.cells import Cells
from arena.empirical.moves import keep_moves
from arena.fields import Declared
from arena.games.game import Game
from arena.identity import sources
from arena.log import RunLog
from arena.store import Store


@dataclass(frozen=True)
class Setup:
    """A match, ready to play, and where its record goes.

    Attributes:
        store: Where trained models are kept; None: nowhere.
        config: The whole configuration as plain data; with order and seed, the match's identity.
        hparams: The options that a sweep compares.
    """

    game: Game
    players: Mapping[str, Player]
    order: MoveOrder
    seed: int
    batch_size: int
    folder: Path
    store: Store | None
    config: Mapping[str, Any]
    hparams: Mapping[str, Any] = field(default_factory=dict)

    def arena(self) -> Arena:
        """The match, checked but not begun."""
        return Arena(self.game, self.players, self.order, self.seed, self.batch_size, self.store)

    @property
    def cells(self) -> Cells:
        """Where costs of cells are kept: beside the trained models, or else in the run's folder."""
        return Cells.beside(self.store.folder if self.store else self.folder / "models")

    def variant(self, order: MoveOrder, seed: int, folder: Path) -> "Setup":
        """The same match under another order and seed."""
        return replace(self, order=order, seed=seed, folder=folder)


@dataclass(frozen=True)
class Played:
    """A match that was played.

    Attributes:
        lines: One line per round.
        outcomes: By player, the costs [rounds, n]; and what is `certified`, bool, if anything is.
        fresh: How many of its rounds were played now; the others were already in the folder.
    """

    lines: list[dict[str, Any]]
    outcomes: dict[str, np.ndarray[Any, Any]]
    fresh: int


def play(
    setup: Setup, rounds: int, tell: Callable[[dict[str, Any]], None], keep: bool = False
) -> Played:
    """Plays a match up to `rounds`, or continues one that was interrupted; tells each line.

    Args:
        setup: The match.
        rounds: How many in all.
        tell: Called with each line.
        keep: Whether to keep the moves of every round, not of the last one only.
    """
    arena = setup.arena()
    config = {**setup.config, "order": str(setup.order), "seed": setup.seed}
    used = sources([setup.game, setup.players, setup.order, Arena])
    with RunLog(setup.folder, config, setup.hparams, used) as log:
        found = len(log.lines)
        for line in log.lines[:rounds]:
            tell(line)
        if log.state is not None and found < rounds:
            arena.load_state_dict(log.state)
        if found < rounds:
            for record in arena.play(rounds):
                state = arena.state_dict()
                if keep:  # before the record, so that no round that is there lacks its moves
                    keep_moves(setup.folder, record.round, state)
                log.write(record, state)
                tell(record.line())
        outcomes = {name: each[:rounds].numpy() for name, each in log.outcomes.items()}
        return Played(log.lines[:rounds], outcomes, max(rounds - found, 0))


class Study(Declared, ABC):
    """What a user runs."""

    @abstractmethod
    def run(self, setup: Setup) -> None:
        """Runs the study, prints the results, and leaves everything in the folder."""
