"""The "test set attack" [F4]: send inputs from a pool, each as often as wanted."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena import chance
from arena.core import ActionSpace, Labelled


@dataclass(frozen=True)
class Pool(ActionSpace):
    """Any of the given inputs, unmodified, in place of any other: not independent, not perturbed.

    An input that is sent keeps its own true label. Shapes: `given` and `output` are [B, ...].
    """

    def _where(self, given: Tensor, output: Tensor) -> Tensor:
        """The index [B] of each output among the given inputs; -1 if it is none of them.

        Of several equal inputs, the index is the output's own row if that is one of them, else the
        first.
        """
        n = len(given)
        # Compared as bits: NaN cannot be sorted, and would hide the rows that sort beside it.
        both = torch.cat([given, output]).flatten(1).view(torch.int32)
        kinds, kind = torch.unique(both, dim=0, return_inverse=True)
        index = torch.arange(n, device=given.device)
        first = torch.full((len(kinds),), n, device=given.device)
        first = first.scatter_reduce(0, kind[:n], index, "amin")[kind[n:]]
        if len(output) == n:
            first = torch.where(kind[:n] == kind[n:], index, first)
        return torch.where(first == n, -1, first)

    def contains(self, given: Tensor, output: Tensor) -> Tensor:
        """Whether each output is, bit for bit, one of the given inputs; bool [B]."""
        return self._where(given, output) >= 0

    def truth(self, given: Labelled, output: Tensor) -> Tensor:
        """The labels [B] of the inputs that were sent."""
        return given.y[self._where(given.x, output)]

    def sample(self, given: Tensor, key: Tensor) -> Tensor:
        """One of the given inputs for each key [B], drawn uniformly."""
        return given[chance.integers(key, len(given))]

    def explain(self, given: Tensor, output: Tensor) -> str:
        """Why a single output (B = 1) is illegal."""
        return "it is none of the inputs of the dealt batch"
