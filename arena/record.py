"""The result of a round."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Record:
    """The result of a round. Payoffs are minus mean costs; `seconds` is the time of each move."""

    round: int
    order: str
    saw: dict[str, dict[str, int]]
    """By player and the opponent it looked at, the round of the move it saw (-1: the opening)."""
    payoffs: dict[str, float]
    standard_errors: dict[str, float]
    zero_sum: bool
    """Whether the costs of all players sum to 0 on every example."""
    metrics: dict[str, float]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    costs: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """The cost of every unit, float64 [n]."""
    exhibit: dict[str, Tensor] = field(default_factory=dict, repr=False)
    certified: Tensor | None = field(default=None, repr=False)
    """Which units are certified, bool [n]: no legal move makes the defender err. None if none can
    be."""

    def outcomes(self) -> dict[str, Tensor]:
        """By name, a tensor [n] over the units: every player's costs, and which are `certified`."""
        return self.costs | ({} if self.certified is None else {"certified": self.certified})

    def line(self) -> dict[str, Any]:
        """The record as plain data, for a line of JSON; tensors are kept elsewhere."""
        plain = dict(vars(self))
        del plain["costs"], plain["exhibit"], plain["certified"]
        return plain | {"notes": list(self.notes)}
