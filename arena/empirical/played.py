"""Moves by name on one board, and what they cost each other: each cell is played once."""

from collections.abc import Mapping

import numpy as np

from arena.empirical.cells import Cells, Costs
from arena.empirical.game import PLAYERS
from arena.empirical.keys import Keys
from arena.empirical.moves import KeptMove
from arena.games.game import Board, Entry


class PlayedCells:
    """Costs of moves that are added one after the other.

    Args:
        board: Its rules score them.
        cells: Where costs are kept between runs; None: nowhere.
    """

    def __init__(self, board: Board, cells: Cells | None) -> None:
        self._board, self._cells, self._keys = board, cells, Keys(board)
        self._moves: dict[str, KeptMove] = {}
        self._prepared: dict[str, Entry] = {}
        self._costs: dict[tuple[str, str], Costs] = {}

    def add(self, name: str, move: KeptMove) -> None:
        """Adds a move; one of this name that is there already stays."""
        self._moves.setdefault(name, move)

    def costs(self, model: str, attack: str) -> Mapping[str, Costs]:
        """By player, the cost of every unit, [E].

        Raises:
            ValueError: If a cost is not finite, naming the moves.
        """
        cell = model, attack
        if cell not in self._costs:
            key = self._keys.cell(self._moves[model], self._moves[attack])
            kept = self._cells.find([key]) if self._cells and key else None
            costs = self._scored(*cell) if kept is None else kept.costs[:, 0]
            if not np.isfinite(costs).all():
                raise ValueError(
                    f"{attack} on {model} has costs that are not finite; if they were kept, remove "
                    f"{self._cells.path if self._cells else 'them'} to play the cells again"
                )
            if kept is None and self._cells and key:
                self._cells.keep({key: costs})
            self._costs[cell] = costs
        return dict(zip(PLAYERS, self._costs[cell], strict=True))

    def entry(self, name: str) -> Entry:
        """A move, prepared to be scored."""
        if name not in self._prepared:
            move = self._moves[name]
            self._prepared[name] = self._board.prepared(move.player, move.entry(self._board))
        return self._prepared[name]

    def _scored(self, model: str, attack: str) -> Costs:
        moves = {"defender": self.entry(model), "attacker": self.entry(attack)}
        found = self._board.score(moves).costs
        return np.stack([found[player].numpy() for player in PLAYERS])
