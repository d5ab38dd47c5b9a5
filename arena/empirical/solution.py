"""The best moves of both players under a protocol, and their payoffs on every example.

u [D, A] are the defender's mean payoffs of each model against each attack, Z [D, A, E] those on
each example. With x a mixture of models and y a mixture of attacks:

    defender first, seen                    V_DF    = max_d min_a u(d, a)
    attacker first, seen                    V_AF    = min_a max_d u(d, a)
    at once, or the draw hidden             v       = max_x min_y x'uy
    defender first, seen through a probe    V_K     = max_x sum_s min_a sum_d x_d K(s|d) u(d, a)
    defender first, one attack per example  V_DF,pe = max_d mean_e min_a Z(d, a, e)
    mixture seen, one attack per example    v_pe    = max_x mean_e min_a sum_d x_d Z(d, a, e)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from arena.empirical.protocol import Protocol
from arena.solvers.informed import per_example, through_probe
from arena.solvers.payoffs import Array, tensor
from arena.solvers.zero_sum import solve

_MEANS = 1e-12  # rounding of means, as a share of the largest payoff


@dataclass(frozen=True)
class Solution:
    """Optimal moves: the defender's mixture of models, and the attacker's replies.

    Attributes:
        protocol: The declarations.
        value: The defender's payoff, a mean over the examples.
        models: The defender's mixture [D]; a single model is a mixture too.
        attacks: The attacker's mixture for each signal [S, A], with a single signal where it sees
            nothing of the draw; None where it replies to each example separately.
        channel: The probability of each signal given the model, [D, S].
        slack: How far the value may be off because of the solver and of rounding, in units of
            payoff.
    """

    protocol: Protocol
    value: float
    models: Array
    attacks: Array | None
    channel: Array
    slack: float

    def scores(self, payoffs: Array) -> Array:
        """The defender's payoff by these moves on each example, [E].

        An attacker that replies to each example separately replies to these examples.

        Args:
            payoffs: Z [D, A, E], of any examples, not only those that the moves were chosen on.
        """
        drawn = self.models[:, None] * self.channel
        if self.attacks is not None:
            paid: Array = np.tensordot(drawn @ self.attacks, payoffs, 2)
            return paid
        by_signal = np.tensordot(drawn.T, payoffs, 1)  # [S, A, E]
        replied: Array = by_signal.min(1).sum(0)
        return replied


def solution(payoffs: ArrayLike, protocol: Protocol, channel: Array | None = None) -> Solution:
    """The best moves of both players under a protocol.

    The attacker minimizes the defender's payoff, whatever its own payoff is. In a game that is not
    zero-sum this is the worst that an attacker can do, not what a self-interested one does.

    Args:
        payoffs: The defender's payoffs Z [D, A, E].
        protocol: The declarations.
        channel: K [D, S], the probability of each signal given the model; needed if the protocol
            has a probe.

    Raises:
        ValueError: If payoffs are missing or not finite, or a probe comes without its channel.
        ArithmeticError: If a linear program fails.
    """
    z = tensor(payoffs, 3)
    u = z.mean(2)
    rounding = _MEANS * float(np.abs(z).max())
    models, attacks = u.shape
    blind = np.ones((models, 1))
    if protocol.observation == "probe":
        if channel is None:
            raise ValueError(f"protocol {protocol}: give the probe's channel [models, signals]")
        if protocol.granularity == "set":
            seen = through_probe(u, channel)
            slack = seen.gap + rounding
            return Solution(protocol, seen.value, seen.mixture, seen.replies, channel, slack)
        # The attacker knows both the signal and the example: each pair of them is an example.
        pairs = channel.shape[1] * np.einsum("ds,dae->dase", channel, z)
        known = per_example(pairs.reshape(models, attacks, -1))
        return Solution(protocol, known.value, known.mixture, None, channel, known.gap + rounding)
    if protocol.observation == "move":
        if protocol.granularity == "example":
            worst = z.min(1).mean(1)
            d = int(worst.argmax())
            return Solution(protocol, float(worst[d]), np.eye(models)[d], None, blind, rounding)
        if protocol.order == "defender_first":
            d = int(u.min(1).argmax())
            a = int(u[d].argmin())
        else:
            a = int(u.max(0).argmin())
            d = int(u[:, a].argmax())
        reply = np.eye(attacks)[[a]]
        return Solution(protocol, float(u[d, a]), np.eye(models)[d], reply, blind, rounding)
    if protocol.granularity == "example":
        found = per_example(z)
        return Solution(protocol, found.value, found.mixture, None, blind, found.gap + rounding)
    even = solve(u)
    return Solution(protocol, even.value, even.row, even.column[None], blind, even.gap + rounding)
