"""What a game is worth by protocol: who moves first, what is seen, and how finely one replies.

u [D, A] is the defender's utility of each of its models against each attack, Z [D, A, E] the same
an example; u is the mean of Z. With x a mixture of models and y one of attacks:

    defender first, seen                    V_DF = max_d min_a u
    attacker first, seen                    V_AF = min_a max_d u
    at once, or the draw hidden             v    = max_x min_y x'uy
    defender first, seen through a probe    V_K  = max_x sum_s min_a sum_d x_d K(s|d) u(d, a)
    attacks chosen an example               v_pe = max_x mean_e min_a sum_d x_d Z(d, a, e)

V_DF <= V_K <= v <= V_AF and v_pe <= v (weak duality and more freedom for the attacker) hold for
every result, or it is not returned. V_K and v_pe are one linear program: a probe's signal and an
example are both something that the attacker knows when it chooses.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, hstack, identity, kron

from arena.solvers.payoffs import Array, matrix, mixture, normalized, span, tensor, unit
from arena.solvers.programs import Method, best_mixture
from arena.solvers.zero_sum import Equilibrium, solve

_SIMPLEX = 2_000  # rows up to which HiGHS's simplex beats its interior point
_FAILED = 1e-6  # of the span: a linear program this far off has not been solved
_ROUNDING = 1e-12  # of the largest payoff


@dataclass(frozen=True)
class Informed:
    """The defender's `mixture` [D] against an attacker who knows something, and its `replies`.

    `replies` [S, A]: the attacker's mixture for each signal, or each example. The value lies within
    `gap` / 2 of `value`; both sides secure it up to `gap`.
    """

    value: float
    mixture: Array
    replies: Array
    gap: float


@dataclass(frozen=True)
class Values:
    """A game's values by protocol, in units of u; None where there is no probe, or no examples.

    `defender_first_per_example` is the best single model against an attack an example. `slack` is
    what the solvers leave open: the sum of their gaps, and rounding.

    Raises:
        ArithmeticError: If weak duality fails by more than the slack: some value is wrong.
    """

    defender_first: float
    attacker_first: float
    equilibrium: Equilibrium
    probe: Informed | None
    per_example: Informed | None
    defender_first_per_example: float | None
    slack: float

    def __post_init__(self) -> None:
        finely = None if self.per_example is None else self.per_example.value
        chains = (
            (self.defender_first, self.probed, self.simultaneous, self.attacker_first),
            (self.defender_first_per_example, self.defender_first),
            (self.defender_first_per_example, finely, self.simultaneous),
        )
        for chain in chains:
            known = [value for value in chain if value is not None]
            if any(low > high + self.slack for low, high in pairwise(known)):
                raise ArithmeticError(f"weak duality fails, {known} should rise: {self}")

    @property
    def simultaneous(self) -> float:
        """The minimax value v."""
        return self.equilibrium.value

    @property
    def probed(self) -> float | None:
        """V_K."""
        return None if self.probe is None else self.probe.value

    @property
    def price_to_defender(self) -> float:
        """Of going first and being seen: v - V_DF >= 0."""
        return self.simultaneous - self.defender_first

    @property
    def price_to_attacker(self) -> float:
        """Of going first and being seen: V_AF - v >= 0."""
        return self.attacker_first - self.simultaneous

    @property
    def order_gap(self) -> float:
        """V_AF - V_DF >= 0; 0 if and only if there is a saddle in pure moves."""
        return self.attacker_first - self.defender_first

    @property
    def information_price(self) -> float | None:
        """What the probe costs the defender: v - V_K >= 0."""
        return None if self.probe is None else self.simultaneous - self.probe.value

    @property
    def gain_of_mixing_per_example(self) -> float | None:
        """What a mixture adds to the best single model against an attack an example; >= 0."""
        if self.per_example is None or self.defender_first_per_example is None:
            return None
        return self.per_example.value - self.defender_first_per_example


def values(payoffs: ArrayLike, channel: ArrayLike | None = None) -> Values:
    """All values of one game.

    Args:
        payoffs: The defender's utility, u [D, A] or Z [D, A, E].
        channel: K [D, S], the probability of each signal given the model; None for no probe.

    Raises:
        ValueError: If payoffs are missing, ragged or not finite, or a row of the channel is not a
            distribution.
        ArithmeticError: If a solver fails, or weak duality does.
    """
    z = tensor(payoffs, 3) if np.ndim(payoffs) == 3 else None
    u = matrix(payoffs) if z is None else z.mean(2)
    equilibrium = solve(u)
    probe = None if channel is None else through_probe(u, channel)
    examples = None if z is None else per_example(z)
    gaps = sum(found.gap for found in (equilibrium, probe, examples) if found is not None)
    return Values(
        float(u.min(1).max()),
        float(u.max(0).min()),
        equilibrium,
        probe,
        examples,
        None if z is None else float(z.min(1).mean(1).max()),
        gaps + _ROUNDING * float(np.abs(u).max()),
    )


def through_probe(payoffs: ArrayLike, channel: ArrayLike) -> Informed:
    """V_K: the defender draws a model, the attacker sees a signal of it and the mixture.

    Args:
        payoffs: u [D, A].
        channel: K [D, S], a distribution over signals for each model. The identity shows the model,
            a single column nothing.

    Raises:
        ValueError: As `values`.
        ArithmeticError: If the linear program fails.
    """
    u = matrix(payoffs)
    shown = matrix(channel, "channel")
    if len(shown) != len(u):
        raise ValueError(f"the channel has {len(shown)} rows for {len(u)} models")
    for model, row in enumerate(shown):
        mixture(row, shown.shape[1], f"channel's row {model}")
    low = u.min()
    found = _informed(shown[:, :, None] * unit(u)[:, None, :], span(u))
    return Informed(low + found.value, found.mixture, found.replies, found.gap)


def per_example(payoffs: ArrayLike) -> Informed:
    """v_pe: the attacker knows the mixture, not the draw, and chooses an attack an example.

    Args:
        payoffs: Z [D, A, E].

    Raises:
        ValueError: If payoffs are missing, ragged or not finite.
        ArithmeticError: If the linear program fails.
    """
    z = tensor(payoffs, 3)
    low = z.min()
    found = _informed(unit(z).transpose(0, 2, 1) / z.shape[2], span(z))
    return Informed(low + found.value, found.mixture, found.replies, found.gap)


def glimpse(models: int, share: float) -> Array:
    """The channel [D, D + 1] that shows the model with probability `share`, else a blank.

    From black box (0) to white box (1), the knowledge curve V_K(share).
    """
    if models < 1 or not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], models at least 1, not {share} and {models}")
    return np.hstack([share * np.eye(models), np.full((models, 1), 1 - share)])


def _informed(pieces: Array, unit_of: float) -> Informed:
    """max_x sum_s min_a sum_d x_d pieces [d, s, a], all in [0, 1 / S]; times `unit_of`.

    The program: maximize sum(t) / S with t_s <= S sum_d x_d pieces [d, s, a]. The prices of the
    rows are the attacker's replies; both sides are certified by what they secure.
    """
    models, signals, attacks = pieces.shape
    # Near 1 whatever the number of signals, since HiGHS's tolerances are absolute.
    wide = csr_array(-signals * pieces.reshape(models, signals * attacks).T)
    per_signal = kron(identity(signals), np.ones((attacks, 1)))
    rows = csr_array(hstack([wide, per_signal]))
    cost = np.append(np.zeros(models), np.full(signals, -1 / signals))
    method: Method = "highs-ds" if rows.shape[0] <= _SIMPLEX else "highs-ipm"
    found = best_mixture(cost, rows, free=signals, method=method)
    assert found is not None, "every mixture is feasible"
    prices = found.prices.reshape(signals, attacks)
    # A signal that never comes has no price: any reply to it will do.
    prices = np.where(prices.sum(1, keepdims=True) > 0, prices, 1.0)
    replies = np.apply_along_axis(normalized, 1, prices)
    low = float(np.tensordot(found.mixture, pieces, 1).min(1).sum())
    high = float(np.einsum("dsa,sa->d", pieces, replies).max())
    if high - low > _FAILED:
        raise ArithmeticError(f"HiGHS left a gap of {high - low:.2g} over {signals} signals")
    gap = max(0.0, high - low)
    return Informed(unit_of * (low + high) / 2, found.mixture, replies, unit_of * gap)
