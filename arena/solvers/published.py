"""Games whose solutions are published or easily found by hand, to check the solvers.

`CLAIMS` is the table of expected values and their sources that the tests check and that
`study=selftest` prints beside the values obtained.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from arena.solvers.alpha_rank import alpha_rank
from arena.solvers.bimatrix import all_equilibria
from arena.solvers.correlated import coarse_correlated, correlated
from arena.solvers.informed import through_probe
from arena.solvers.payoffs import Array
from arena.solvers.quantal import quantal_response
from arena.solvers.stackelberg import mixed_commitment, pure_commitment
from arena.solvers.zero_sum import solve

PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])
ROCK_PAPER_SCISSORS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
# Rock wins 2 against scissors.
BIASED = np.array([[0.0, -1.0, 2.0], [1.0, 0.0, -1.0], [-2.0, 1.0, 0.0]])
# One guard, two targets worth 1 and 2; the row is guarded, the column attacked.
SECURITY = np.array([[0.0, -2.0], [-1.0, 0.0]])
# Pairs of the row player's payoffs and the column player's.
CONITZER_SANDHOLM = np.array([[2.0, 4.0], [1.0, 3.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
BATTLE_OF_THE_SEXES = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 2.0]])
CHICKEN = np.array([[6.0, 2.0], [7.0, 0.0]]), np.array([[6.0, 7.0], [2.0, 0.0]])
# The row player wants to match the column player, who wants to be one place further.
SHAPLEY = np.eye(3), np.roll(np.eye(3), 1, axis=1)
VON_STENGEL = np.array([[0.0, 6], [2, 5], [3, 3]]), np.array([[1.0, 0], [0, 2], [4, 3]])
# Inspect or not, violate or not: an inspection costs 1, a violation costs 3 unseen and 1 seen; the
# violator gains 1 unseen and loses 2 seen.
INSPECTION = np.array([[-2.0, -1.0], [-3.0, 0.0]]), np.array([[-2.0, 0.0], [1.0, 0.0]])
# Each produces Stackelberg's output or Cournot's.
BAGWELL = np.array([[5.0, 3.0], [6.0, 4.0]]), np.array([[2.0, 1.0], [3.0, 4.0]])


def blotto(mine: int, theirs: int) -> Array:
    """Colonel Blotto's payoffs [mine + 1, theirs + 1], by the regiments sent to the first post.

    There are two posts. At each, the larger force wins 1 for the post and 1 for each regiment of
    the smaller force; equal forces win nothing.

    Args:
        mine: The number of regiments of the row player.
        theirs: The number of regiments of the column player.
    """
    payoffs = np.zeros((mine + 1, theirs + 1))
    for i, j in np.ndindex(payoffs.shape):
        posts = ((i, j), (mine - i, theirs - j))
        payoffs[i, j] = sum(float(np.sign(x - y) * (min(x, y) + 1)) for x, y in posts)
    return payoffs


def kuhn_poker() -> Array:
    """Kuhn's poker: the first player's mean winnings [27, 64] by both players' plans.

    There are three cards, the ante is 1 and the bet is 1. For each card the first player plans to
    bet, to check and then fold, or to check and then call. The second player plans to fold or call
    after a bet, and to check or bet after a check.
    """
    firsts = list(product(("bet", "fold", "call"), repeat=3))
    seconds = list(product(product(("fold", "call"), ("check", "bet")), repeat=3))
    payoffs = np.zeros((len(firsts), len(seconds)))
    for (row, first), (column, second) in product(enumerate(firsts), enumerate(seconds)):
        for mine, theirs in permutations(range(3), 2):
            answer, initiative = second[theirs]
            win = 1.0 if mine > theirs else -1.0
            if first[mine] == "bet":
                won = 2 * win if answer == "call" else 1.0
            elif initiative == "check":
                won = win
            else:
                won = 2 * win if first[mine] == "call" else -1.0
            payoffs[row, column] += won / 6
    return payoffs


def observed(payoffs: Array, channel: Array) -> Array:
    """The payoffs [m, n^S] of a game whose column player sees a signal of the row player's action.

    Args:
        payoffs: One player's, [m, n].
        channel: [m, S], the probability of each signal given the action.

    Returns:
        One column per plan of replies to the signals; the reply to the last signal changes fastest.
    """
    replies = product(range(payoffs.shape[1]), repeat=channel.shape[1])
    columns = [(channel * payoffs[:, list(reply)]).sum(1) for reply in replies]
    return np.stack(columns, axis=1)


def bagwell(noise: float) -> tuple[Array, Array]:
    """Bagwell's game: both players' payoffs [2, 4]; `noise` is how often the signal is wrong."""
    channel = np.array([[1 - noise, noise], [noise, 1 - noise]])
    return observed(BAGWELL[0], channel), observed(BAGWELL[1], channel)


@dataclass(frozen=True)
class Claim:
    """A published or hand-solved number, and its computation here.

    Attributes:
        game: The game's name.
        what: What the number is.
        expected: The number.
        source: Who published it, or how it is found by hand.
        obtain: Computes the number with the solvers.
        tolerance: The largest difference allowed.
    """

    game: str
    what: str
    expected: float
    source: str
    obtain: Callable[[], float]
    tolerance: float = 1e-7

    def holds(self, obtained: float) -> bool:
        """Whether a number is within the tolerance of the one expected; False for NaN."""
        return abs(obtained - self.expected) <= self.tolerance


def _pure_payoffs(row: Array, column: Array) -> Iterator[float]:
    """The row player's payoff in each pure equilibrium."""
    for nash in all_equilibria(row, column).extreme:
        if nash.row.max() == nash.column.max() == 1:
            yield nash.payoffs[0]


CLAIMS = (
    Claim("matching pennies", "value", 0, "von Neumann 1928", lambda: solve(PENNIES).value),
    Claim(
        "matching pennies",
        "value through a probe that is wrong 1 time in 10 (payoffs 0, 1)",
        0.1,
        "by hand: right where the probe is wrong",
        lambda: through_probe((1 + PENNIES) / 2, [[0.9, 0.1], [0.1, 0.9]]).value,
    ),
    Claim(
        "matching pennies",
        "price of going first",
        1,
        "by hand: 0 less -1",
        lambda: solve(PENNIES).value - pure_commitment(PENNIES, -PENNIES).value,
    ),
    Claim(
        "matching pennies",
        "alpha-rank of each profile, alpha 1000",
        1 / 4,
        "by symmetry",
        lambda: float(alpha_rank(PENNIES, -PENNIES, 1000.0).masses.max()),
    ),
    Claim(
        "rock, paper, scissors",
        "value",
        0,
        "von Neumann 1928",
        lambda: solve(ROCK_PAPER_SCISSORS).value,
    ),
    Claim(
        "rock, paper, scissors, rock's win doubled",
        "share of paper",
        1 / 2,
        "by hand: Ay = 0",
        lambda: float(solve(BIASED).row[1]),
    ),
    Claim("one guard, two targets", "value", -2 / 3, "by hand", lambda: solve(SECURITY).value),
    Claim("Kuhn poker", "value", -1 / 18, "Kuhn 1950", lambda: solve(kuhn_poker()).value),
    Claim(
        "Colonel Blotto, 4 regiments against 3",
        "value",
        14 / 9,
        "by hand: (4, 0, 1, 0, 4) / 9 against (1, 8, 8, 1) / 18",
        lambda: solve(blotto(4, 3)).value,
    ),
    Claim(
        "Conitzer & Sandholm's figure 1",
        "pure commitment",
        3,
        "Conitzer & Sandholm 2006",
        lambda: pure_commitment(*CONITZER_SANDHOLM).value,
    ),
    Claim(
        "Conitzer & Sandholm's figure 1",
        "mixed commitment",
        3.5,
        "Conitzer & Sandholm 2006",
        lambda: mixed_commitment(*CONITZER_SANDHOLM).value,
    ),
    Claim(
        "Conitzer & Sandholm's figure 1",
        "without commitment",
        2,
        "Conitzer & Sandholm 2006",
        lambda: all_equilibria(*CONITZER_SANDHOLM).extreme[0].payoffs[0],
    ),
    Claim(
        "inspection",
        "inspector's payoff at once",
        -3 / 2,
        "by hand: half violate, a third is inspected",
        lambda: all_equilibria(*INSPECTION).extreme[0].payoffs[0],
    ),
    Claim(
        "inspection",
        "inspector's payoff, committed",
        -1 / 3,
        "by hand: a third inspected deters",
        lambda: mixed_commitment(*INSPECTION).value,
    ),
    Claim(
        "Bagwell's duopoly",
        "pure leader, seen exactly",
        5,
        "Bagwell 1995",
        lambda: pure_commitment(*BAGWELL).value,
    ),
    Claim(
        "Bagwell's duopoly",
        "pure leader, seen with 1 % noise",
        4,
        "Bagwell 1995",
        lambda: max(_pure_payoffs(*bagwell(0.01))),
    ),
    Claim(
        "Bagwell's duopoly",
        "equilibria with 1 % noise",
        3,
        "van Damme & Hurkens 1997",
        lambda: len(all_equilibria(*bagwell(0.01)).extreme),
    ),
    Claim(
        "battle of the sexes",
        "equilibria",
        3,
        "Luce & Raiffa 1957",
        lambda: len(all_equilibria(*BATTLE_OF_THE_SEXES).extreme),
    ),
    Claim(
        "von Stengel's 3 x 2 game",
        "equilibria",
        3,
        "von Stengel 2002",
        lambda: len(all_equilibria(*VON_STENGEL).extreme),
    ),
    Claim(
        "Shapley's game",
        "equilibria",
        1,
        "Shapley 1964",
        lambda: len(all_equilibria(*SHAPLEY).extreme),
    ),
    Claim(
        "chicken",
        "most welfare of a correlated equilibrium",
        10.5,
        "Aumann 1974",
        lambda: correlated(*CHICKEN, CHICKEN[0] + CHICKEN[1]).value,
    ),
    Claim(
        "matching pennies",
        "coarse correlated value",
        0,
        "by minimax",
        lambda: coarse_correlated(PENNIES, -PENNIES, PENNIES).value,
    ),
    Claim(
        "rock, paper, scissors",
        "share of rock in quantal response",
        1 / 3,
        "by symmetry",
        lambda: float(quantal_response(ROCK_PAPER_SCISSORS, -ROCK_PAPER_SCISSORS, 5.0).row[0]),
    ),
)
