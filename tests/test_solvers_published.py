"""The table of published games holds, and could fail."""

import numpy as np
import pytest

from arena.solvers.published import CLAIMS, PENNIES, blotto, kuhn_poker, observed
from arena.solvers.zero_sum import solve


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.game}: {claim.what}")
def test_what_is_published_is_obtained(claim):
    obtained = claim.obtain()
    assert claim.holds(obtained), f"{obtained} instead of {claim.expected} ({claim.source})"


def test_no_other_number_would_do():
    for claim in CLAIMS:
        assert not claim.holds(claim.expected + 0.001)
        assert not claim.holds(float("nan"))
    assert len({(claim.game, claim.what) for claim in CLAIMS}) == len(CLAIMS)


def test_kuhn_poker_is_dealt_right():
    payoffs = kuhn_poker()
    assert payoffs.shape == (27, 64)
    # Everybody bets and calls: each wins 2 as often as the other. Bet to one who folds: 1.
    calls_and_bets, folds = 63, 0
    assert payoffs[0, calls_and_bets] == pytest.approx(0)
    assert payoffs[0, folds] == pytest.approx(1)
    # Kuhn's family: with the middle card never bet, with the low one bet less than 1 in 3 times.
    found = solve(payoffs)
    plans = found.row.reshape(3, 3, 3)  # an axis for each card; 0 is to bet
    assert plans[0].sum() <= 1 / 3 + 1e-9
    assert plans[:, 0].sum() == pytest.approx(0)


def test_blotto_is_fought_right():
    # Rows (0, 4), (1, 3), (2, 2) against (0, 3), (1, 2).
    assert blotto(4, 3)[:3, :2].tolist() == [[4, 2], [1, 3], [-2, 2]]
    assert solve(blotto(3, 3)).value == pytest.approx(0)


def test_a_signal_that_tells_all_or_nothing():
    clear = observed(PENNIES, np.eye(2))
    assert clear.min(1).tolist() == [-1, -1]  # replies to what is seen
    blind = observed(PENNIES, np.ones((2, 1)))
    assert blind.tolist() == PENNIES.tolist()
