"""Values by protocol where payoffs are intervals: certified below, attacked above.

An attack gives an upper bound on a defender's utility, a certificate a lower one. Every value of
`protocols` is monotone in the payoffs, so the true one lies between its values on the two; a price,
being a difference, lies between the outer differences.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from arena.solvers.protocols import Values, values


@dataclass(frozen=True)
class Bracket:
    """The values of the lower payoffs, and of the upper: the true ones lie between them."""

    low: Values
    high: Values

    @property
    def price_to_defender(self) -> tuple[float, float]:
        """An interval that holds v - V_DF."""
        return _between(
            self.low.simultaneous - self.high.defender_first,
            self.high.simultaneous - self.low.defender_first,
        )

    @property
    def price_to_attacker(self) -> tuple[float, float]:
        """An interval that holds V_AF - v."""
        return _between(
            self.low.attacker_first - self.high.simultaneous,
            self.high.attacker_first - self.low.simultaneous,
        )

    @property
    def order_gap(self) -> tuple[float, float]:
        """An interval that holds V_AF - V_DF."""
        return _between(
            self.low.attacker_first - self.high.defender_first,
            self.high.attacker_first - self.low.defender_first,
        )


def _between(low: float, high: float) -> tuple[float, float]:
    return max(0.0, low), high  # a price is never negative


def bracketed(lower: ArrayLike, upper: ArrayLike, channel: ArrayLike | None = None) -> Bracket:
    """The values of both ends of payoffs that are intervals; see `values`.

    Raises:
        ValueError: As `values`; if the shapes differ or a lower payoff is above its upper one.
    """
    low, high = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    if low.shape != high.shape:
        raise ValueError(f"lower payoffs {low.shape} and upper ones {high.shape}: need one shape")
    if (low > high).any():
        place = tuple(int(i) for i in np.argwhere(low > high)[0])
        raise ValueError(
            f"lower payoff {low[place]:g} above the upper {high[place]:g} at {list(place)}: "
            "certificate or attack is wrong"
        )
    return Bracket(values(low, channel), values(high, channel))
