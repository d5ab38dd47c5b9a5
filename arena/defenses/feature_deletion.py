"""FDROP: a linear classifier that is optimal against the worst deletion of features."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arena.core import Labelled
from arena.fields import Count, Positive, Whole
from arena.training.cutting_plane import Minimum, minimum
from arena.training.fitted import Fitted

_ROWS = 4096
"""Examples whose features are sorted at the same time."""


@dataclass(frozen=True)
class FeatureDeletion(Fitted):
    """Globerson & Roweis, "Nightmare at test time" (ICML 2006): FDROP, for two classes and more.

    Minimises 1/2 ||w||^2 + c sum_i h_i(w), where h_i is the worst hinge loss of example i over all
    deletions of at most k of its features: [1 - y w.x + s(w)]_+, with s(w) the sum of the k largest
    positive y w_j x_j (the paper's equations for the first player's optimum and the inner maximum).
    With K > 2 classes (the paper's multiclass section) the objective is 1/2 sum_y ||w_y||^2 +
    c sum_i max_y' [1 + (w_y' - w_y).x + s_y'(w)]_+. With two classes it is as above, for
    w = w_1 - w_0. k = 0 is a linear support vector machine.

    Deviations from the paper:
        * The same convex program is solved by cutting planes (`cutting_plane.minimum`), until the
          duality gap is below `tolerance` of the objective. The paper replaces the inner maximum by
          its dual and gives a quadratic program, with a variable for each example and feature, to a
          general solver.
        * At most k features are deleted, not exactly k.
        * There is a bias: the weight of a constant feature 1, which is regularised like the others
          and never deleted.

    Attributes:
        k: Number of deletions to prepare for; the attacker's own limit is its `actions.k`.
        c: Weight of the loss of one example.
        tolerance: Duality gap to stop at, as a share of the objective.
        planes: Most passes over the data.
    """

    k: Whole = 10
    c: Positive = 0.03
    tolerance: Positive = 1e-3
    planes: Count = 2000

    def solve(self, data: Labelled) -> Minimum:
        """The weights and their certificate; float64, flattened from [K, n + 1], bias last.

        Raises:
            Unsolved: If the gap is still too wide after the last plane.
        """
        x = nn.functional.pad(data.x.flatten(1).double(), (0, 1), value=1.0)
        start = x.new_zeros(data.classes * x.shape[1])

        def risk(flat: Tensor) -> tuple[Tensor, Tensor]:
            weight = flat.reshape(data.classes, -1)
            value, slope = flat.new_zeros(()), torch.zeros_like(weight)
            for part in torch.split(torch.arange(len(x), device=x.device), _ROWS):
                loss, kept, other = self._worst(weight, x[part], data.y[part])
                value = value + loss.sum()
                kept = kept * (loss > 0)[:, None]
                slope.index_add_(0, other, kept).index_add_(0, data.y[part], kept, alpha=-1.0)
            return value, slope.flatten()

        # The least norm splits w = w_1 - w_0 evenly: 1/2 ||w||^2 = ||w_0||^2 + ||w_1||^2.
        twice = 2.0 if data.classes == 2 else 1.0
        found = minimum(risk, start, self.c / twice, self.tolerance, self.planes)
        return Minimum(found.weights, twice * found.objective, twice * found.bound)

    def _worst(self, weight: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The worst hinge loss [B], the inputs after it [B, n + 1], and the rival class [B]."""
        k = min(self.k, x.shape[1] - 1)
        loss, kept, other = torch.zeros_like(x[:, 0]), x, y
        for label in range(len(weight)):
            adds = (weight[y] - weight[label]) * x
            most = adds[:, :-1].clamp(min=0).topk(k, dim=1)
            hinge = 1.0 - adds.sum(1) + most.values.sum(1)
            worse = (hinge > loss) & (y != label)
            goes = torch.zeros_like(x, dtype=torch.bool).scatter(1, most.indices, most.values > 0)
            loss = torch.where(worse, hinge, loss)
            kept = torch.where(worse[:, None], x.masked_fill(goes, 0.0), kept)
            other = torch.where(worse, label, other)
        return loss, kept, other

    def fit(self, data: Labelled, seed: int) -> dict[str, Tensor]:
        """`weight` [K, n] and `bias` [K]; the seed has no effect."""
        weight = self.solve(data).weights.reshape(data.classes, -1).float()
        return {"weight": weight[:, :-1].contiguous(), "bias": weight[:, -1].contiguous()}

    def module(self, state: Mapping[str, Tensor], classes: int) -> nn.Module:
        """The linear classifier."""
        # Made without values: the initialiser would draw from the global generator.
        linear = nn.Linear(state["weight"].shape[1], classes, device="meta")
        linear.weight, linear.bias = nn.Parameter(state["weight"]), nn.Parameter(state["bias"])
        return nn.Sequential(nn.Flatten(), linear)
