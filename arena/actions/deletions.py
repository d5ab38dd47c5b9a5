"""Deletion of features (Globerson & Roweis, ICML 2006, section 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena import chance
from arena.core import ActionSpace
from arena.fields import Whole


@dataclass(frozen=True)
class Deletions(ActionSpace):
    """At most `k` features of an input (entries of the tensor) are deleted: set to 0.

    Shapes: `given` and `output` are [B, ...]. The paper deletes exactly k features. To an attacker
    this is the same wherever k features support the true class, or are 0 already.

    Attributes:
        k: Most deletions per input.
    """

    k: Whole = 10

    def contains(self, given: Tensor, output: Tensor) -> Tensor:
        """Whether each output is its input with at most k features set to 0, bool [B]; exact."""
        if output.shape != given.shape:
            return torch.zeros(len(given), dtype=torch.bool, device=given.device)
        changed = (output != given).flatten(1)
        return ~(changed & (output != 0).flatten(1)).any(1) & (changed.sum(1) <= self.k)

    def sample(self, given: Tensor, key: Tensor) -> Tensor:
        """Each input with a uniformly random set of k features deleted."""
        x = given.flatten(1)
        order = chance.uniform(key, x.shape[1:]).argsort(dim=1, stable=True)
        return x.scatter(1, order[:, : self.k], 0.0).reshape(given.shape)

    def explain(self, given: Tensor, output: Tensor) -> str:
        """The first reason why a single output (B = 1) is illegal."""
        if output.shape != given.shape:
            return f"shape {tuple(output.shape)} instead of {tuple(given.shape)}"
        changed = (output != given).flatten()
        kept = changed & (output != 0).flatten()
        if bool(kept.any()):
            i = int(kept.int().argmax())
            return f"feature {i} became {float(output.flatten()[i]):g}; a deletion makes it 0"
        return f"{int(changed.sum())} features are deleted, k {self.k}"
