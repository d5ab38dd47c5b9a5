"""No attack: the inputs as they were dealt."""

from dataclasses import dataclass

from torch import Tensor

from arena.core import Strategy, Turn


@dataclass(frozen=True)
class Honest(Strategy):
    """A legitimate user: the i.i.d. baseline [F1]."""

    def respond(self, turn: Turn) -> Tensor:
        """The inputs [B, ...] themselves."""
        return turn.data.x
