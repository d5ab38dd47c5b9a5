"""The "test set attack" [F4]: find one mistake, and send it again and again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.pool import Pool
from arena.attacks.engines.spaces import serving
from arena.core import Player, Strategy, Turn
from arena.knowledge import LabelView, View


@dataclass(frozen=True)
class Replay(Strategy):
    """Probes its own inputs, one query each, and always sends the one whose answer costs it least.

    Needs actions=pool: an input that is sent keeps its own true label, and is not perturbed. Where
    no input is a mistake, or the budget ended before one was found, the inputs are sent as they
    are.
    """

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": LabelView}
    spaces: ClassVar[tuple[type[Pool], ...]] = (Pool,)

    def check(self, player: Player) -> None:
        """Raises ValueError unless one input may be sent in place of another."""
        serving(player, "Replay", self.spaces)

    def respond(self, turn: Turn) -> Tensor:
        """The same mistake in every place, [B, ...]."""
        view = turn.see("defender", LabelView)
        x, y, cost = turn.data.x, turn.data.y, turn.player.cost
        labels = y.clone()
        for rows in turn.batches():
            rows = rows[view.remaining(rows) > 0]
            answers = view.labels(x[rows], rows)
            labels[rows] = answers
        gained = cost.answered(y, y) - cost.answered(labels, y)
        best = gained.argmax()
        # If nothing is gained, every input keeps its place.
        source = torch.where(gained[best] > 0, best, torch.arange(len(x), device=x.device))
        return x[source]
