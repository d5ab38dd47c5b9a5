"""The nearest neighbors of an input."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from arena.core import Labelled
from arena.fields import Count
from arena.knowledge import ScoreView, View
from arena.training.fitted import Fitted, log_shares


@dataclass(frozen=True)
class NearestNeighbors(Fitted):
    """The scores are the class shares among the `k` nearest training examples in L2.

    The scores are piecewise constant, so there are no gradients to follow: attacks must query. Ties
    go to the first class.

    Attributes:
        k: Number of neighbors; all examples if there are fewer.
    """

    k: Count = 5

    @property
    def exposes(self) -> type[View]:
        """Scores."""
        return ScoreView

    def fit(self, data: Labelled, seed: int) -> dict[str, Tensor]:
        """The training examples: `x` [N, n] and `y` [N]."""
        return {"x": data.x.flatten(1).cpu(), "y": data.y.cpu()}

    def module(self, state: Mapping[str, Tensor], classes: int) -> nn.Module:
        """The vote."""
        return _Vote(state, min(self.k, len(state["y"])), classes)


class _Vote(nn.Module):
    x: Tensor
    y: Tensor

    def __init__(self, state: Mapping[str, Tensor], k: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("x", state["x"])
        self.register_buffer("y", state["y"])
        self.k, self.classes = k, classes

    def forward(self, x: Tensor) -> Tensor:
        """The log [B, K] of the class shares among the neighbors of each input of `x` [B, ...]."""
        near = torch.cdist(x.flatten(1), self.x).topk(self.k, largest=False).indices
        votes = one_hot(self.y[near], self.classes).sum(1)
        return log_shares(votes / self.k)
