"""Random noise: a legal input drawn at random, without a query."""

from dataclasses import dataclass

from torch import Tensor

from arena.core import Strategy, Turn


@dataclass(frozen=True)
class Noise(Strategy):
    """The control for every attack: what the action space alone does, without a search."""

    def respond(self, turn: Turn) -> Tensor:
        """A random move [B, ...] of the space."""
        moves: Tensor = turn.player.actions.sample(turn.data.x, turn.keys)
        return moves
