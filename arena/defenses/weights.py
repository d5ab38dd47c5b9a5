"""The weights of a mixture, and the draw of one of its members."""

from collections.abc import Sequence

import torch
from torch import Tensor

from arena import chance


def check_weights(weights: Sequence[float], of: str) -> None:
    """Raises ValueError unless the weights of `of` sum to 1 within 1e-6."""
    if abs(sum(weights) - 1.0) > 1e-6:
        raise ValueError(f"the weights of {of} sum to {sum(weights):g}; make it 1")


def cumulative(weights: Sequence[float]) -> Tensor:
    """The cumulative weights, float64 [n]; they end at 1 exactly, and a draw lies below."""
    total = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    return total / total[-1]


def drawn(edges: Tensor, key: Tensor) -> Tensor:
    """The number, int64 [B], of the member drawn for each key [B], by cumulative weights."""
    return torch.searchsorted(edges, chance.uniform(key).double(), right=True)
