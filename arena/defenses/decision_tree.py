"""A decision tree."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arena.core import Labelled
from arena.fields import Count
from arena.knowledge import ScoreView, View
from arena.training.fitted import Fitted, log_shares


@dataclass(frozen=True)
class DecisionTree(Fitted):
    """CART, as scikit-learn grows it; the scores are the class shares in the leaf.

    The scores are piecewise constant, so there are no gradients to follow: attacks must query.

    Attributes:
        depth: Most splits on a path; None: split until leaves are pure.
        leaf: Fewest examples in a leaf.
    """

    depth: Count | None = None
    leaf: Count = 1

    @property
    def exposes(self) -> type[View]:
        """Scores."""
        return ScoreView

    def fit(self, data: Labelled, seed: int) -> dict[str, Tensor]:
        """For each node: its children, the feature and threshold of its split, its class shares."""
        from sklearn.tree import DecisionTreeClassifier

        fitted = DecisionTreeClassifier(
            max_depth=self.depth, min_samples_leaf=self.leaf, random_state=seed % 2**32
        ).fit(data.x.flatten(1).cpu().numpy(), data.y.cpu().numpy())
        tree = fitted.tree_
        shares = torch.zeros(tree.node_count, data.classes, dtype=torch.float64)
        shares[:, torch.as_tensor(fitted.classes_)] = torch.as_tensor(tree.value[:, 0])
        # The child of a leaf (-1) becomes the leaf itself.
        sides = (torch.as_tensor(side) for side in (tree.children_left, tree.children_right))
        children, itself = torch.stack([*sides]), torch.arange(tree.node_count)
        return {
            "children": torch.where(children < 0, itself, children),
            "feature": torch.as_tensor(tree.feature).clamp(min=0),
            "threshold": torch.as_tensor(tree.threshold),
            "shares": (shares / shares.sum(1, keepdim=True)).float(),
            "depth": torch.tensor(tree.max_depth),
        }

    def module(self, state: Mapping[str, Tensor], classes: int) -> nn.Module:
        """The tree."""
        return _Tree(state)


class _Tree(nn.Module):
    node_children: Tensor
    node_feature: Tensor
    node_threshold: Tensor
    node_shares: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in ("children", "feature", "threshold", "shares"):
            self.register_buffer(f"node_{name}", state[name])
        self.depth = int(state["depth"])

    def forward(self, x: Tensor) -> Tensor:
        """The log [B, K] of the class shares in the leaf of each input of `x` [B, ...]."""
        flat = x.flatten(1)
        rows = torch.arange(len(flat), device=x.device)
        node = torch.zeros_like(rows)
        for _ in range(self.depth):
            right = flat[rows, self.node_feature[node]].double() > self.node_threshold[node]
            node = self.node_children[right.long(), node]
        return log_shares(self.node_shares[node])
