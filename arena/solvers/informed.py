"""Zero-sum games in which the attacker knows something when it replies to a mixed defender.

u [D, A] are the defender's payoffs, of each of its models against each attack; Z [D, A, E] are the
same payoffs for each of E examples. The attacker knows the defender's mixture x [D] but not the
model drawn from it. It knows one thing more: a signal s of the model, with probabilities K(s|d), or
the example e.

    seen through a probe     V_K  = max_x sum_s min_a sum_d x_d K(s|d) u(d, a)
    one attack per example   v_pe = max_x mean_e min_a sum_d x_d Z(d, a, e)

Both are the same linear program: a signal and an example are each something that the attacker
knows when it chooses. Neither is worth more to the defender than the minimax value v of u (or of
the mean of Z), in which the attacker knows the mixture alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, hstack

from arena.solvers.payoffs import FAILED, Array, matrix, mixture, normalized, span, tensor, unit
from arena.solvers.programs import Method, best_mixture

_SIMPLEX = 2_000  # rows up to which HiGHS's simplex beats its interior point method


@dataclass(frozen=True)
class InformedEquilibrium:
    """Optimal moves of both players, and bounds on the game's value.

    Attributes:
        value: The defender's payoff to within `gap` / 2.
        mixture: The defender's mixture [D].
        replies: The attacker's mixture for each signal, [S, A], or for each example, [E, A].
        gap: The most that both players together gain by deviating, in units of the payoffs.
    """

    value: float
    mixture: Array
    replies: Array
    gap: float


def through_probe(payoffs: ArrayLike, channel: ArrayLike) -> InformedEquilibrium:
    """V_K: the attacker sees the mixture and a signal of the model that was drawn.

    Args:
        payoffs: u [D, A].
        channel: K [D, S], the probability of each signal given the model. The identity shows the
            model; a single column shows nothing.

    Raises:
        ValueError: If payoffs are missing, ragged or not finite, or a row of the channel is not a
            distribution.
        ArithmeticError: If the linear program fails.
    """
    u = matrix(payoffs)
    shown = matrix(channel, "channel")
    if len(shown) != len(u):
        raise ValueError(f"the channel has {len(shown)} rows for {len(u)} models: give one each")
    for model, row in enumerate(shown):
        mixture(row, shown.shape[1], f"channel's row {model}")
    return _informed(shown[:, :, None] * unit(u)[:, None, :], u)


def per_example(payoffs: ArrayLike) -> InformedEquilibrium:
    """v_pe: the attacker sees the mixture and chooses one attack per example.

    Args:
        payoffs: Z [D, A, E].

    Raises:
        ValueError: If payoffs are missing, ragged or not finite.
        ArithmeticError: If the linear program fails.
    """
    z = tensor(payoffs, 3)
    return _informed(unit(z).transpose(0, 2, 1) / z.shape[2], z)


def glimpse(models: int, share: float) -> Array:
    """The channel [D, D + 1] that shows the model with probability `share`, else a blank.

    From black box (0) to white box (1), V_K by share is the knowledge curve.

    Raises:
        ValueError: If the share is not in [0, 1] or there are no models.
    """
    if models < 1 or not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], models at least 1, not {share} and {models}")
    return np.hstack([share * np.eye(models), np.full((models, 1), 1 - share)])


def _informed(pieces: Array, payoffs: Array) -> InformedEquilibrium:
    """max_x sum_s min_a sum_d x_d pieces [d, s, a], in units of the payoffs.

    The pieces are in [0, 1 / S], of payoffs moved to [0, 1]. The program: maximize sum(t) / S with
    t_s <= S sum_d x_d pieces [d, s, a]. The prices of its rows are the attacker's replies. The gap
    is computed from what both sides secure.
    """
    models, signals, attacks = pieces.shape
    # Near 1 for any number of signals, since HiGHS's tolerances are absolute.
    wide = csr_array(-signals * pieces.reshape(models, signals * attacks).T)
    row, signal = np.arange(signals * attacks), np.repeat(np.arange(signals), attacks)
    per_signal = csr_array((np.ones(signals * attacks), (row, signal)))
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
    if high - low > FAILED:
        raise ArithmeticError(f"HiGHS left a gap of {high - low:.2g} over {signals} signals")
    value = float(payoffs.min()) + span(payoffs) * (low + high) / 2
    gap = span(payoffs) * max(0.0, high - low)
    return InformedEquilibrium(value, found.mixture, replies, gap)
