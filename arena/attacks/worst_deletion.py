"""Worst-case deletion of features, exact against a linear classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from arena.actions.deletions import Deletions
from arena.attacks.engines import losses
from arena.attacks.engines.linear import LinearLogits, linear
from arena.attacks.engines.spaces import serving
from arena.attacks.engines.walks import wide
from arena.core import Labelled, Player, Strategy, Turn
from arena.knowledge import View, WhiteBox


@dataclass(frozen=True)
class WorstDeletion(Strategy):
    """Globerson & Roweis, "Nightmare at test time" (ICML 2006), section 2: the first player.

    Against logits that are linear in the features, feature j adds (w_y - w_k)_j x_j to the margin
    of the truth over another class k. Deleting the k features that add most, where they add at all,
    leaves the least margin over that class; the class with the least margin of all decides. So an
    input is a mistake after this deletion if any deletion makes it one.
    """

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}
    spaces: ClassVar[tuple[type[Deletions], ...]] = (Deletions,)

    def check(self, player: Player) -> None:
        """Raises ValueError unless features may be deleted."""
        serving(player, "WorstDeletion", self.spaces)

    def respond(self, turn: Turn) -> Tensor:
        """The inputs with the worst deletions, [B, ...].

        Raises:
            ValueError: If the logits are not linear, or some mistakes are worth more than others.
        """
        cost, y = turn.player.cost, turn.data.y
        wins = losses.winning(losses.prices(cost, y, turn.data.classes, turn.data.classes))
        wrong = one_hot(y, turn.data.classes) == 0
        if bool((wins.any(1) & (wins != wrong).any(1)).any()):
            raise ValueError(
                "WorstDeletion takes all mistakes to be equal, but the attacker's cost does not; "
                "use cost=negation of the error rate"
            )
        weights = linear(turn.see("defender", WhiteBox), turn)
        space = serving(turn.player, "WorstDeletion", self.spaces)
        moved = turn.each_batch(lambda rows: worst(turn.data[rows], weights, space.k))
        return torch.where(wide(wins.any(1), moved), moved, turn.data.x)


def worst(data: Labelled, weights: LinearLogits, k: int) -> Tensor:
    """The inputs [B, ...] with at most `k` features deleted, for the least margin of the truth."""
    x = data.x.flatten(1)
    logits = weights.logits(x)
    truth = logits.gather(1, data.y[:, None]).squeeze(1)
    least = torch.full_like(logits[:, 0], torch.inf)
    moved = x
    for other in range(data.classes):
        adds = (weights.weight[data.y] - weights.weight[other]) * x
        most = adds.clamp(min=0).topk(min(k, x.shape[1]), dim=1)
        margin = truth - logits[:, other] - most.values.sum(1)
        better = (margin < least) & (data.y != other)
        least = torch.where(better, margin, least)
        # Features that add nothing stay, as their deletion would not help.
        goes = torch.zeros_like(x, dtype=torch.bool).scatter(1, most.indices, most.values > 0)
        moved = torch.where(better[:, None], x.masked_fill(goes, 0.0), moved)
    return moved.reshape(data.x.shape)
