"""What a game is worth by protocol, with its uncertainty.

Each protocol is solved on each seed's payoff tensor; what its optimal moves pay on each example is
the estimate's sample. Seeds are the independent units where there are several (`over_seeds`), and a
price is a mean of paired differences: ignoring the pairing would nearly double its interval.

Three more readings of the same costs:

*Held out*: moves are chosen on one half of the examples and paid on the other, both ways. The best
of noisy cells looks better than it is, and a price is never negative by construction; held out it
is neither, so that "the price is 0" can be tested.

*Bracket*: an attack is a lower bound on the defender's cost and a certificate an upper one. Every
value is monotone in the payoffs, so that of the whole threat model lies between those of the two.

*Margin*: with probability 1 - delta all cells' means are within sqrt(ln(2 D A / delta) / 2 E) of
the payoffs' range of the truth at once (Hoeffding 1963), whatever the distribution: V_DF, V_K, v
and V_AF move by at most as much, prices by twice, the NashConv of the estimated equilibrium by four
times as much. It does not cover attackers who reply an example at a time.
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
        protocol: What was declared.
        scores: By seed, what the optimal moves pay on each example, [E]; empty if cells are
            missing.
        held_out: By seed, the same of moves chosen without the example's half.
        solutions: By seed, the optimal moves.
        ends: Scores as certified below, and as attacked above, by seed; None without certificates.
    """

    protocol: Protocol
    scores: tuple[Array, ...]
    held_out: tuple[Array, ...]
    solutions: tuple[Solution, ...]
    ends: tuple[tuple[Array, ...], tuple[Array, ...]] | None = None

    @property
    def estimate(self) -> Estimate | None:
        """The plug-in value; None if cells are missing."""
        return over_seeds(self.scores) if self.scores else None

    @property
    def unselected(self) -> Estimate | None:
        """The held-out value; None if it was not asked for."""
        return over_seeds(self.held_out) if self.held_out else None

    @property
    def bracket(self) -> tuple[Estimate, Estimate] | None:
        """The certified end, and the attacked."""
        return None if self.ends is None else (over_seeds(self.ends[0]), over_seeds(self.ends[1]))


@dataclass(frozen=True)
class Price:
    """What the defender loses from one protocol to another that is worth less to it, paired."""

    name: str
    high: Value
    low: Value

    @property
    def estimate(self) -> Estimate | None:
        """At least 0 by construction."""
        return _paired(self.high.scores, self.low.scores)

    @property
    def unselected(self) -> Estimate | None:
        """Held out: may be negative, and an interval above 0 says that the price is not 0."""
        return _paired(self.high.held_out, self.low.held_out)

    @property
    def bracket(self) -> tuple[float, float] | None:
        """What the price lies between where payoffs are intervals, but for sampling."""
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
    ("what an attack an example costs a mixture", AT_ONCE, MIXTURE_PER_EXAMPLE),
    (
        "what mixing gains against an attack an example",
        MIXTURE_PER_EXAMPLE,
        DEFENDER_FIRST_PER_EXAMPLE,
    ),
)
"""Names, with the protocols between which the defender's payoff falls.

Mixing against an attacker who knows the mixture gains v - V_DF, which is the first of them: not to
be seen and to go second are worth the same.
"""


@dataclass(frozen=True)
class Values:
    """A game's values, in units of the defender's payoff.

    Attributes:
        values: By protocol.
        zero_sum: Whether the attacker's payoffs are the negation of the defender's. If not, these
            are values against the worst attacker, who cares for nothing but the defender's loss.
        unattacked: Models that no attack was crafted against, where attacks were against others.
            To the attacker who sees such a model the game offers nothing made for it: what it is
            worth when seen is an upper bound.
        margin: The Hoeffding margin at 95 % of one seed's cells, for costs in [0, 1]; None for
            others, whose range the costs found do not tell.
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
        """Those whose two protocols are there."""
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
        games: One a seed, of the same models and attacks.
        protocols: What is asked.
        hold_out: Whether to solve on halves as well: three times the work.
        cells: The least and the most that a cell can cost the defender. Where cells are missing,
            values are then bracketed by the two; None refuses missing cells.
        seed: Of the halves, and of a probe's inputs.

    Raises:
        ValueError: If games differ in their names; if cells are missing and `cells` is None; if
            there are fewer than two examples to halve; if a probe asks what is not known.
        ArithmeticError: If a solver fails, or weak duality does: some value is wrong.
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
    """How far any cell's mean is from the truth at most, with probability 1 - delta.

    In units of the range of an example's payoff.
    """
    return math.sqrt(math.log(2 * models * attacks / delta) / (2 * examples))


def _check(
    games: Sequence[EmpiricalGame], hold_out: bool, cells: tuple[float, float] | None
) -> None:
    if not games:
        raise ValueError("no game to analyse: give one a seed")
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
                    f"{error}; or state the least and the most that a cell can cost (cells), and "
                    "have values bracketed"
                ) from None
        if hold_out and game.examples < 2:
            raise ValueError("one example cannot be halved: hold nothing out (hold_out=False)")
    if cells is not None and not cells[0] <= cells[1]:
        raise ValueError(f"cells={cells}: give the least that a cell can cost first")


def _solved(payoffs: Array, protocol: Protocol, shown: Array | None) -> tuple[Solution, Array]:
    moves = solution(payoffs, protocol, shown)
    return moves, moves.scores(payoffs)


def _held_out(payoffs: Array, protocol: Protocol, shown: Array | None, seed: int) -> Array:
    """What each example pays by moves that were chosen on the half without it, [E]."""
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
    """V_DF <= V_K <= v <= V_AF and finer replies never leave more, or some value is wrong.

    Raises:
        ArithmeticError: If it fails by more than what the solvers leave open.
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
