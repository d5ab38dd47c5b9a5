"""The value of a game under each protocol, with its uncertainty.

Each protocol is solved on each seed's payoff tensor, and the estimate's sample are the payoffs of
the optimal moves on each example. Where there are several seeds, they are the independent units
(`over_seeds`). A price is a mean of paired differences: without the pairing its interval would be
nearly twice as wide.

The same costs have three more readings:

*Held out*: moves are chosen on one half of the examples and paid on the other half, both ways. The
best of noisy cells looks better than it is, and a price is never negative by construction. Held-out
prices have neither bias, so "the price is 0" can be tested.

*Bracket*: an attack gives a lower bound on the defender's cost, a certificate an upper one. Every
value is monotone in the payoffs, so the value of the whole threat model lies between the values of
the two bounds.

*Margin*: with probability 1 - delta the means of all cells are at once within
sqrt(ln(2 D A / delta) / 2 E) x the payoffs' range of the truth (Hoeffding 1963), whatever the
distribution. V_DF, V_K, v and V_AF move by at most as much, prices by twice as much, the NashConv
of the estimated equilibrium by four times as much. The margin does not cover attackers who reply to
each example separately.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arena.empirical.game import EmpiricalGame
from arena.empirical.probe import channel
from arena.empirical.protocol import (
    AT_ONCE,
    ATTACKER_FIRST,
    DEFENDER_FIRST,
    DEFENDER_FIRST_PER_EXAMPLE,
    HALF_SEEN,
    MIXTURE_PER_EXAMPLE,
    STANDARD,
    Protocol,
)
from arena.empirical.solution import Solution, solution
from arena.estimate import Estimate, over_seeds
from arena.solvers.payoffs import Array


@dataclass(frozen=True)
class Value:
    """The defender's payoff under a protocol.

    Attributes:
        protocol: The declarations.
        scores: For each seed, the payoff of the optimal moves on each example, [E]; empty if cells
            are missing.
        held_out: For each seed, the payoff on each example, [E], of moves chosen on the half that
            does not hold it; empty if not asked for.
        solutions: For each seed, the optimal moves; empty if cells are missing.
        ends: For each seed, the scores [E] of certified payoffs (the lower end), and of attacked
            payoffs (the upper end); None without certificates.
    """

    protocol: Protocol
    scores: tuple[Array, ...]
    held_out: tuple[Array, ...]
    solutions: tuple[Solution, ...]
    ends: tuple[tuple[Array, ...], tuple[Array, ...]] | None = None

    @property
    def estimate(self) -> Estimate | None:
        """The value of the estimated payoffs; None if cells are missing."""
        return over_seeds(self.scores) if self.scores else None

    @property
    def unselected(self) -> Estimate | None:
        """The held-out value; None if it was not asked for."""
        return over_seeds(self.held_out) if self.held_out else None

    @property
    def bracket(self) -> tuple[Estimate, Estimate] | None:
        """The certified end and the attacked end; None without certificates."""
        return None if self.ends is None else (over_seeds(self.ends[0]), over_seeds(self.ends[1]))


@dataclass(frozen=True)
class Price:
    """The defender's loss from one protocol to another that is worth less to it, paired.

    Attributes:
        name: Whose price it is, and of what.
        high: The value under the protocol that is worth more.
        low: The value under the protocol that is worth less.
    """

    name: str
    high: Value
    low: Value

    @property
    def estimate(self) -> Estimate | None:
        """At least 0 by construction."""
        return _paired(self.high.scores, self.low.scores)

    @property
    def unselected(self) -> Estimate | None:
        """The held-out price: it may be negative; an interval above 0 shows a price above 0."""
        return _paired(self.high.held_out, self.low.held_out)

    @property
    def bracket(self) -> tuple[float, float] | None:
        """The bounds of the price where payoffs are intervals, apart from sampling."""
        if self.high.bracket is None or self.low.bracket is None:
            return None
        high, low = self.high.bracket, self.low.bracket
        return max(0.0, high[0].mean - low[1].mean), high[1].mean - low[0].mean


def _paired(high: Sequence[Array], low: Sequence[Array]) -> Estimate | None:
    if not high or not low:
        return None
    return over_seeds([a - b for a, b in zip(high, low, strict=True)])


PRICES = (
    ("the defender's price of going first", AT_ONCE, DEFENDER_FIRST),
    ("the attacker's price of going first", ATTACKER_FIRST, AT_ONCE),
    ("the order gap", ATTACKER_FIRST, DEFENDER_FIRST),
    ("the price of being half seen", AT_ONCE, HALF_SEEN),
    ("what one attack per example costs a mixture", AT_ONCE, MIXTURE_PER_EXAMPLE),
    (
        "what mixing gains against one attack per example",
        MIXTURE_PER_EXAMPLE,
        DEFENDER_FIRST_PER_EXAMPLE,
    ),
)
"""Each price's name, and the two protocols between which the defender's payoff falls.

Mixing against an attacker who knows the mixture gains v - V_DF, which is the first price: staying
unseen and moving at once are worth the same.
"""


@dataclass(frozen=True)
class Values:
    """A game's values, in units of the defender's payoff.

    Attributes:
        values: One per protocol.
        zero_sum: Whether the attacker's payoffs are the negation of the defender's. If not, these
            are values against the worst attacker, who wants only the defender's loss.
        unattacked: The models that no attack was crafted against, if other models were attacked.
            The game holds no attack made for such a model, so its value when seen is an upper
            bound.
        margin: The Hoeffding margin, at 95 %, of the cells of one seed, for costs in [0, 1]; None
            for other costs, since those found do not show their range.
    """

    values: tuple[Value, ...]
    zero_sum: bool
    unattacked: tuple[str, ...]
    margin: float | None

    def __getitem__(self, protocol: Protocol) -> Value:
        for value in self.values:
            if value.protocol == protocol:
                return value
        raise KeyError(f"no value was computed for protocol {protocol}")

    @property
    def prices(self) -> tuple[Price, ...]:
        """The prices whose two protocols were both asked for."""
        there = {value.protocol for value in self.values}
        return tuple(
            Price(name, self[high], self[low]) for name, high, low in PRICES if {high, low} <= there
        )


def values(
    games: Sequence[EmpiricalGame],
    protocols: Sequence[Protocol] = STANDARD,
    hold_out: bool = True,
    cells: tuple[float, float] | None = None,
    seed: int = 0,
) -> Values:
    """The values of one game, played with one or several seeds.

    Args:
        games: One per seed, of the same models and attacks.
        protocols: The protocols to solve.
        hold_out: Whether to solve on halves as well, which is three times the work.
        cells: The lowest and the highest cost of any cell to the defender. Values of games with
            missing cells are then bracketed by the two; None refuses missing cells.
        seed: Of the halves, and of the inputs that a probe asks about.

    Raises:
        ValueError: If games differ in their names; if cells are missing and `cells` is None; if
            there are fewer than two examples to halve; if a probe needs unknown answers.
        ArithmeticError: If a solver fails, or weak duality fails, so that some value is wrong.
    """
    _check(games, hold_out, cells)
    asked = list(dict.fromkeys(protocols))
    channels = [[channel(protocol, game, seed) for game in games] for protocol in asked]
    complete = not any(game.missing for game in games)
    bounded = not complete or all(game.most is not None for game in games)
    found = []
    for protocol, shown in zip(asked, channels, strict=True):
        seeds = list(zip(games, shown, strict=True))
        solved: list[tuple[Solution, Array]] = []
        halves: list[Array] = []
        if complete:
            solved = [_solved(game.payoffs("defender"), protocol, k) for game, k in seeds]
        if complete and hold_out:
            halves = [_held_out(g.payoffs("defender"), protocol, k, seed) for g, k in seeds]
        ends = None
        if bounded:
            sides = [
                [_solved(end, protocol, k)[1] for end in _ends(game, cells)] for game, k in seeds
            ]
            ends = tuple(low for low, _ in sides), tuple(high for _, high in sides)
        moves, scores = tuple(m for m, _ in solved), tuple(s for _, s in solved)
        found.append(Value(protocol, scores, tuple(halves), moves, ends))
    _check_duality(found)
    costs = [game.costs["defender"] for game in games]
    unit = all(np.nanmin(cost) >= 0 and np.nanmax(cost) <= 1 for cost in costs)
    least = min(game.examples for game in games)
    size = len(games[0].models), len(games[0].attacks)
    return Values(
        tuple(found),
        all(game.zero_sum for game in games),
        _unattacked(games),
        margin(*size, least) if unit else None,
    )


def _unattacked(games: Sequence[EmpiricalGame]) -> tuple[str, ...]:
    attacked = {model for game in games for model in game.against if model is not None}
    if not attacked:
        return ()
    return tuple(model for model in games[0].models if model not in attacked)


def margin(models: int, attacks: int, examples: int, delta: float = 0.05) -> float:
    """The largest error of the mean of any cell, with probability 1 - delta.

    In units of the range of one example's payoff; see the module's *margin*.
    """
    return math.sqrt(math.log(2 * models * attacks / delta) / (2 * examples))


def _check(
    games: Sequence[EmpiricalGame], hold_out: bool, cells: tuple[float, float] | None
) -> None:
    if not games:
        raise ValueError("no game to analyze: give one per seed")
    for game in games:
        if (game.models, game.attacks) != (games[0].models, games[0].attacks):
            raise ValueError(
                "seeds need the same models and attacks in the same order, not "
                f"{game.models}, {game.attacks} beside {games[0].models}, {games[0].attacks}"
            )
        if game.missing and cells is None:
            try:
                game.payoffs("defender")
            except ValueError as error:
                raise ValueError(
                    f"{error}; or state the least and the most that a cell can cost (cells) to "
                    "bracket the values"
                ) from None
        if hold_out and game.examples < 2:
            raise ValueError("one example cannot be halved: hold nothing out (hold_out=False)")
    if cells is not None and not cells[0] <= cells[1]:
        raise ValueError(f"cells={cells}: give the least that a cell can cost first")


def _solved(payoffs: Array, protocol: Protocol, shown: Array | None) -> tuple[Solution, Array]:
    moves = solution(payoffs, protocol, shown)
    return moves, moves.scores(payoffs)


def _held_out(payoffs: Array, protocol: Protocol, shown: Array | None, seed: int) -> Array:
    """The payoff on each example, [E], of moves that were chosen on the half without it."""
    examples = payoffs.shape[2]
    order = np.random.default_rng(seed).permutation(examples)
    halves = order[: examples // 2], order[examples // 2 :]
    scores = np.empty(examples)
    for chosen_on, paid_on in (halves, halves[::-1]):
        moves = solution(payoffs[:, :, chosen_on], protocol, shown)
        scores[paid_on] = moves.scores(payoffs[:, :, paid_on])
    return scores


def _ends(game: EmpiricalGame, cells: tuple[float, float] | None) -> tuple[Array, Array]:
    """The lowest and the highest payoffs [D, A, E] that certificates and missing cells allow."""
    cost = np.asarray(game.costs["defender"], dtype=float)
    most = cost.copy() if game.most is None else np.broadcast_to(game.most[:, None], cost.shape)
    least, most = cost.copy(), np.array(most, dtype=float)
    for model, attack in game.missing:
        assert cells is not None, "missing cells were refused"
        d, a = game.models.index(model), game.attacks.index(attack)
        certified = np.inf if game.most is None else game.most[d]
        least[d, a], most[d, a] = cells[0], np.minimum(cells[1], certified)
    return 0.0 - most, 0.0 - least


def _check_duality(found: Sequence[Value]) -> None:
    """Checks V_DF <= V_K <= v <= V_AF, and that finer replies never leave the defender more.

    Raises:
        ArithmeticError: If one fails by more than the solvers' slack: some value is wrong.
    """
    for one in found:
        for other in found:
            if one is other or not one.protocol.at_most(other.protocol):
                continue
            for mine, theirs in zip(one.solutions, other.solutions, strict=True):
                if mine.value > theirs.value + mine.slack + theirs.slack:
                    raise ArithmeticError(
                        f"weak duality fails: {mine.value} under {one.protocol}, "
                        f"{theirs.value} under {other.protocol}"
                    )
